// The page of `burnish serve`: sends a picture, draws patches as they come, compares before and after.
"use strict";

const $ = (id) => document.getElementById(id);
// `before` and `after`: every pixel of the picture; the canvases on the page have those that are seen.
const state = { file: null, abort: null, about: null, before: null, after: document.createElement("canvas") };

// The time slider is logarithmic from 50 ms; its right end is no limit but the server's.
const budget = () => { const v = Number($("budget").value); return v >= 100 ? null : Math.round(50 * 10 ** (v / 30)); };
const milliseconds = (ms) => ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
const decibel = (value) => `${value.toFixed(1)} dB`;

function showControls() {
  $("budget_text").value = budget() === null ? "no limit" : milliseconds(budget());
  const quality = Number($("quality").value);
  $("quality_text").value = quality >= 50 ? "never" : `${quality} dB`;
  $("iterations_text").value = $("iterations").value;
}

function query() {
  const wanted = new URLSearchParams({ max_iterations: $("iterations").value });
  if (budget() !== null) wanted.set("budget_ms", budget());
  const quality = Number($("quality").value);
  if (quality < 50) wanted.set("min_quality", (quality - 10) / 40); // the scale: 0 to 1 is 10 to 50 dB
  return wanted;
}

function say(text, isError = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", isError);
}

function compare() {
  const at = $("compare").value;
  $("after").style.clipPath = `inset(0 0 0 ${at}%)`;
  $("divider").style.left = `${at}%`;
}

function paint(side, pixels, left, top, width, height) {
  const context = $(side).getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(pixels, left, top, width, height);
}

// Browsers scale a canvas more roughly than a picture, so both sides are canvases; twice as large as they are seen, which
// leaves to the browser the halving that it does well.
function fit() {
  const { width, height } = state.after;
  const part = Math.min(1, 2 * devicePixelRatio * $("frame").clientWidth / width);
  for (const side of ["before", "after"]) {
    $(side).width = Math.ceil(width * part);
    $(side).height = Math.ceil(height * part);
    paint(side, state[side], 0, 0, $(side).width, $(side).height);
  }
}

// Put a patch into the picture after, and onto the page what is seen of it, between whole pixels lest there be seams.
function draw(patch, left, top) {
  state.after.getContext("2d").drawImage(patch, left, top);
  const across = $("after").width / state.after.width, down = $("after").height / state.after.height;
  const [x, y] = [Math.round(left * across), Math.round(top * down)];
  const [right, bottom] = [Math.round((left + patch.width) * across), Math.round((top + patch.height) * down)];
  paint("after", patch, x, y, right - x, bottom - y);
}

function image(source) {
  return new Promise((resolve, reject) => {
    const picture = new Image();
    picture.onload = () => resolve(picture);
    picture.onerror = () => reject(new Error("a picture did not arrive"));
    picture.src = source;
  });
}

async function begin(row) {
  state.before = await image(`picture/${row.token}/before.jpg`);
  state.after.width = row.width;
  state.after.height = row.height;
  state.after.getContext("2d").drawImage(state.before, 0, 0);
  $("invitation").hidden = $("found").hidden = $("trace").hidden = $("save").hidden = true;
  $("stage").classList.remove("empty");
  $("frame").hidden = $("progress").hidden = false;
  $("progress").firstElementChild.style.width = "0";
  $("save").href = `picture/${row.token}/restored.png`;
  $("frame").style.setProperty("--width", row.width);
  $("frame").style.setProperty("--height", row.height);
  fit();
  compare();
}

async function update(row) {
  const [top, left] = row.region;
  if (row.patch) draw(await image(row.patch), left, top);
  $("progress").firstElementChild.style.width = `${100 * row.done / row.tiles}%`;
  const where = row.tiles > 1 ? `tile ${row.tile + 1} of ${row.tiles}, iteration ${row.iteration}` : `iteration ${row.iteration}`;
  say(`${where}: predicted ${decibel(row.predicted_psnr_db)} after ${milliseconds(row.elapsed_ms)}`);
}

function cells(table, rows) {
  const body = table.querySelector("tbody");
  body.replaceChildren(...rows.map((row) => {
    const line = document.createElement("tr");
    line.append(...row.map((content) => {
      const cell = document.createElement("td");
      cell.append(content);
      return cell;
    }));
    return line;
  }));
}

function meter(value) {
  const element = document.createElement("meter");
  element.value = value ?? 0;
  element.title = value === undefined ? "not assessed" : `${Math.round(100 * value)} %`;
  return element;
}

function result(row) {
  const [first, last] = [row.steps[0]?.degradations ?? {}, row.steps.length > 1 ? row.steps.at(-1).degradations : {}];
  cells($("found"), Object.keys(first).map((kind) => [kind.replace("_", " "), meter(first[kind]), meter(last[kind])]));
  cells($("trace"), row.steps.map((step) => [
    step.iteration === 0 ? "as it came" : String(step.iteration),
    decibel(10 + 40 * step.quality), milliseconds(step.cost_ms), milliseconds(step.elapsed_ms),
  ]));
  $("found").hidden = $("trace").hidden = row.steps.length === 0;
  $("reason").textContent = `Stopped (${row.reason}): ${state.about?.reasons[row.reason] ?? row.reason}. Kept iteration ${row.iteration}.`;
  const count = Math.max(0, row.steps.length - 1);
  const assessed = row.steps.length ? `, predicted ${decibel(row.predicted_psnr_db)}` : "";
  say([`${count} ${count === 1 ? "round" : "rounds"} in ${milliseconds(row.elapsed_ms)}${assessed}; stopped: ${row.reason}.`, ...row.notes].join(" "));
  $("save").hidden = false;
}

// What the server says; that it says nothing any more, in words.
async function heard(promise) {
  try {
    return await promise;
  } catch (error) {
    throw error.name === "AbortError" ? error : new Error("the server has broken off; restore again");
  }
}

async function* lines(response) {
  let rest = "";
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await heard(reader.read());
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) yield JSON.parse(part);
  }
}

async function restore() {
  if (!state.file || state.abort) return;
  if (state.about && state.file.size > state.about.upload_mb << 20) {
    return say(`The picture has more than ${state.about.upload_mb} MB; choose a smaller one.`, true);
  }
  state.abort = new AbortController();
  $("again").disabled = true;
  $("stop").disabled = false;
  let begun = false;
  say("Sending …");
  try {
    const sent = { method: "POST", body: state.file, signal: state.abort.signal };
    const response = await heard(fetch(`restore?${query()}`, sent));
    if (!response.ok) throw new Error((await response.json()).error);
    say("Waiting for its turn …");
    for await (const row of lines(response)) {
      if (row.event === "start") {
        await begin(row);
        begun = true;
      }
      if (row.event === "update") await update(row);
      if (row.event === "result") result(row);
      if (row.event === "error") throw new Error(row.error);
    }
  } catch (error) {
    const stopped = error.name === "AbortError";
    if (stopped && begun) $("save").hidden = false;
    say(!stopped ? error.message : begun ? "Stopped; what was restored so far is shown." : "Stopped.", !stopped);
  } finally {
    $("progress").hidden = true;
    state.abort = null;
    $("again").disabled = false;
    $("stop").disabled = true;
  }
}

function take(file) {
  if (!file || state.abort) return;
  state.file = file;
  restore();
}

for (const name of ["budget", "quality", "iterations"]) $(name).addEventListener("input", showControls);
$("compare").addEventListener("input", compare);
new ResizeObserver(() => { if (state.before) fit(); }).observe($("frame"));
$("file").addEventListener("change", () => take($("file").files[0]));
$("stage").addEventListener("click", () => { if ($("frame").hidden) $("file").click(); });
$("stage").addEventListener("keydown", (event) => {
  if ($("frame").hidden && (event.key === "Enter" || event.key === " ")) $("file").click();
});
document.addEventListener("dragover", (event) => { event.preventDefault(); $("stage").classList.add("over"); });
document.addEventListener("dragleave", () => $("stage").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("stage").classList.remove("over");
  take(event.dataTransfer.files[0]);
});
$("controls").addEventListener("submit", (event) => { event.preventDefault(); restore(); });
$("open").addEventListener("click", () => $("file").click());
$("stop").addEventListener("click", () => state.abort?.abort());
showControls();
fetch("about").then((answer) => answer.json()).then((about) => {
  state.about = about;
  $("about").textContent = `${about.program} on ${about.backend} · weights ${about.licence}`;
  $("about").title = about.chosen_because;
});
