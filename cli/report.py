"""`burnish report`: everything measured of a bundle on one page; two bundles side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..runtime.bundle import MANIFEST, Bundle, is_embedded, locate
from ..runtime.errors import InputError

REPORTS = "reports"


def reports_of(bundle: Path | None) -> Path:
    """Where reports go unless told otherwise: into the bundle.

    Of an embedded one, which is the installation's, into ./reports/SIZE.
    """
    place = locate(bundle)
    return Path(REPORTS) / place.stem if is_embedded(place) else place / REPORTS


def report_command(bundle: Path | None, reports: Path | None) -> dict[str, Any]:
    """Write report.html and report.md beside what `burnish validate` and `burnish profile` left there.

    JSON-ready, with a `summary`. Raises InputError where nothing was measured.
    """
    from ..device_tests.contents import known_of
    from ..device_tests.report import PAGE, TEXT, write_report

    folder = reports or reports_of(bundle)
    if reports is None and not folder.is_dir():
        Bundle.open(bundle)  # which says so where there is none
    contents = known_of(locate(bundle), folder)
    write_report(contents, folder)
    return {
        "page": str(folder / PAGE),
        "markdown": str(folder / TEXT),
        "numerics": contents.numerics is not None,
        "perf": contents.perf is not None,
        "summary": f"report: {folder / PAGE}\nfor a README: {folder / TEXT}",
    }


def compare_command(before: Path, after: Path) -> tuple[dict[str, Any], bool]:
    """Two bundles, or folders of their reports; JSON-ready with a `summary`, and whether nothing is worse."""
    from ..device_tests.compare import compare, describe
    from ..device_tests.contents import known_of

    places = (locate(before), locate(after))
    for place in places:
        if not place.is_dir():
            raise InputError(f"{place} is not a folder; expected a bundle, or a folder of its reports")
    one, other = (known_of(p, reports_of(p) if (p / MANIFEST).is_file() else p) for p in places)
    comparison = compare(one, other)
    rows = [row._asdict() for row in comparison.differences]
    result = {"before": str(before), "after": str(after), "differences": rows, "missing": list(comparison.missing)}
    return result | {"summary": describe(comparison)}, not comparison.regressed
