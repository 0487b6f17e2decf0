"""A tree of experts from recursive k-means on degradation embeddings (UniRestorer, section 3.2)."""

from __future__ import annotations

from itertools import accumulate

import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import Tensor, nn

from ...runtime.tree import LEAVES

# How many children every node has, level by level from the root.
Children = tuple[tuple[int, ...], ...]


class ExpertTree(nn.Module):
    """Nodes numbered level by level from the root, 0, each with the centre of its cluster.

    Buffers: `origin` (width,), the mean of all embeddings; `centres` (nodes, width), zero until `grow`; `presence`
    (nodes, our seven leaves), the share of a node's embeddings whose picture suffered from each degradation.
    """

    origin: Tensor
    centres: Tensor
    presence: Tensor
    paths: Tensor  # (finest nodes, levels): the nodes from the root to each finest one

    def __init__(self, children: Children, width: int) -> None:
        super().__init__()
        self.levels = (1, *(sum(counts) for counts in children))
        ends = list(accumulate(self.levels))
        self.spans = [range(end - size, end) for size, end in zip(self.levels, ends, strict=True)]
        following = iter(range(1, ends[-1]))
        # The finest nodes have no children.
        counts = [count for level in children for count in level] + [0] * self.levels[-1]
        self.offspring = [[next(following) for _ in range(count)] for count in counts]
        parents = {child: node for node, below in enumerate(self.offspring) for child in below}
        self.register_buffer("origin", torch.zeros(width))
        self.register_buffer("centres", torch.zeros(ends[-1], width))
        self.register_buffer("presence", torch.zeros(ends[-1], len(LEAVES)))
        paths: list[list[int]] = []
        for node in self.spans[-1]:
            path = [node]
            while path[0]:
                path.insert(0, parents[path[0]])
            paths.append(path)
        self.register_buffer("paths", torch.tensor(paths), persistent=False)

    @property
    def grown(self) -> bool:
        return bool(self.centres.any())

    @property
    def finest(self) -> Tensor:
        """Centres of the finest nodes (leaves, width)."""
        return self.centres[self.spans[-1].start :]

    def place(self, embeddings: Tensor) -> Tensor:
        """Embeddings (B, width) where clusters live: their directions from the origin, of unit length.

        What all embeddings share would otherwise outweigh what tells them apart.
        """
        return F.normalize(embeddings.float() - self.origin, dim=-1)

    @torch.no_grad()
    def grow(self, embeddings: Tensor, presence: Tensor) -> None:
        """Cluster embeddings (N, width) with degradation labels (N, our leaves) in [0, 1] from the root downwards.

        The larger a cluster, the more children the node has that takes it. What is too small to be split further lends
        its own members to the children left over.
        """
        self.origin.copy_(embeddings.mean(0))
        placed = self.place(embeddings).cpu()
        presence = presence.cpu()

        def settle(node: int, members: Tensor) -> None:
            self.centres[node] = placed[members].mean(0)
            self.presence[node] = presence[members].mean(0)
            children = self.offspring[node]
            count = min(len(children), len(members))
            if count == 0:
                return
            labels = torch.from_numpy(KMeans(count, random_state=0).fit_predict(placed[members].numpy()))
            clusters = sorted((members[labels == label] for label in range(count)), key=len, reverse=True)
            clusters = [cluster for cluster in clusters if len(cluster)]
            clusters += [members] * (len(children) - len(clusters))
            order = sorted(children, key=lambda child: -len(self.offspring[child]))
            for child, cluster in zip(order, clusters, strict=True):
                settle(child, cluster)

        settle(0, torch.arange(len(placed)))

    def descend(self, embeddings: Tensor) -> Tensor:
        """The finest node, counted from 0, that each of (B, width) comes to by the nearest centre on every level."""
        placed = self.place(embeddings)
        node = torch.zeros(len(embeddings), dtype=torch.long, device=embeddings.device)
        for level, span in enumerate(self.spans[1:], 1):
            distances = torch.cdist(placed, self.centres[span.start : span.stop])
            above = dict(self.paths[:, level - 1 : level + 1].flip(1).tolist())
            parents = torch.tensor([above[child] for child in span], device=embeddings.device)
            node = span.start + distances.masked_fill(parents != node[:, None], torch.inf).argmin(1)
        return node - self.spans[-1].start

    def nearest(self, embeddings: Tensor) -> Tensor:
        """The finest centre nearest to each of (B, width), on whichever branch: (B, width)."""
        return self.finest[torch.cdist(self.place(embeddings), self.finest).argmin(1)]
