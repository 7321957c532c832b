// The page on which a person labels subtomograms. An answer counts when the server has it on disk; until then the page
// does not move on. What the page shows of answers is what the server says of them, never its own idea.
"use strict";

const KEYS = [..."1234567890qwertyuiopasdfghjklzxcvbnm"];
const SHIFTED = [..."qwertyuiopasdfghjklzxcvbnm"];
const AXES = ["z", "y", "x"];
const POLL = 1500; // milliseconds
const $ = (id) => document.getElementById(id);

let asked; // the questions, as the server sent them
let state = null; // the answers, as the server last sent them
let here = 0; // place of the shown sample in the query
let shown = null; // its voxels, once they are drawn: no answer before that
let cut = { z: 0, y: 0, x: 0 };
let active = "z"; // the view that the arrow keys scroll
let busy = false;
let offline = false;
const volumes = new Map();

// === The server ===

class Refused extends Error {}

async function get(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Refused((await problem(response)).error);
  return response;
}

async function problem(response) {
  try {
    return await response.json();
  } catch {
    return { error: `The program answered ${response.status} ${response.statusText}.` };
  }
}

// What the server says after a change; a change that is refused is shown, with the answers as they really are.
async function post(path, body) {
  if (busy) return false;
  busy = true;
  try {
    const response = await fetch(path, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
    });
    connected(true);
    const said = await (response.ok ? response.json() : problem(response));
    if (response.ok) return take(said);
    if (said.state) take(said.state);
    message(said.error, true);
  } catch {
    connected(false);
    message("Not saved.", true);
  } finally {
    busy = false;
  }
  return false;
}

async function poll() {
  if (!document.hidden && !busy) {
    try {
      const fresh = await (await get("state")).json();
      connected(true);
      if (!busy) take(fresh);
    } catch (error) {
      // Between two cycles nobody answers.
      if (!(error instanceof Refused)) connected(false);
    }
  }
  setTimeout(poll, POLL);
}

function connected(yes) {
  offline = !yes;
  $("banner").hidden = yes || (state !== null && state.finished);
  $("banner").textContent = "No connection to the program: answers cannot be saved now. All that were given before are " +
    "on disk. If it has ended, start it again, with --resume, and open the page that it names.";
}

// The voxels of a sample, one byte each, (z, y, x).
function volume(place, smooth) {
  const key = `${place}${smooth ? " smooth" : ""}`;
  if (!volumes.has(key)) {
    const coming = get(`volume/${place}${smooth ? "?low_pass=1" : ""}`)
      .then((response) => response.arrayBuffer())
      .then((buffer) => new Uint8Array(buffer));
    coming.catch(() => volumes.delete(key));
    volumes.set(key, coming);
    if (volumes.size > 60) volumes.delete(volumes.keys().next().value);
  }
  return volumes.get(key);
}

// === Answers ===

const isLabel = (answer) => typeof answer === "number";
const words = (answer) => (isLabel(answer) ? asked.classes[answer] : answer);
const count = (test) => state.answers.filter(test).length;

function take(fresh) {
  if (fresh.cycle !== asked.cycle) {
    location.reload();
    return false;
  }
  // An answer to a poll may come later than what was asked after it.
  if (fresh.version >= state.version) state = fresh;
  showAnswers();
  return true;
}

async function answer(given) {
  if (!shown || state.finished || $("sure").open) return;
  const sample = asked.samples[here];
  if (await post("answer", { sample, answer: given, before: state.answers[here] })) {
    message(`Sample ${sample}: ${words(given)}. Saved.`);
    const left = state.answers.map((_, k) => (here + 1 + k) % state.answers.length);
    const next = left.find((place) => state.answers[place] === null);
    if (next !== undefined) go(next);
  }
}

async function undo() {
  if (state.last === null || state.finished) return message("There is nothing to take back.");
  const sample = state.last;
  const place = asked.samples.indexOf(sample);
  const before = state.answers[place];
  if (await post("undo", { sample, before })) {
    message(`Sample ${sample}: ${words(before)} is taken back.`);
    go(place);
  }
}

function askToFinish() {
  const left = count((a) => a === null);
  const said = left === 1 ? "One sample has no answer: it stays" : `${left} samples have no answer: they stay`;
  $("sure-text").textContent = left ? `${said} in the pool, and may be asked for again.` : "All samples have an answer.";
  $("sure").showModal();
}

function counts() {
  return `${count(isLabel)} labelled, ${count((a) => a === "skip")} skipped, ${count((a) => a === "junk")} junk`;
}

function showAnswers() {
  const total = state.answers.length;
  $("progress").textContent = `${total - count((a) => a === null)} of ${total} answered: ${counts()}`;
  const mine = state.answers[here];
  $("given").textContent = mine === null ? "no answer yet" : words(mine);
  $("given").className = isLabel(mine) ? "label" : mine ?? "";
  [...$("classes").children].forEach((button, k) => button.classList.toggle("given", k === mine));
  for (const name of ["skip", "junk"]) $(name).classList.toggle("given", name === mine);
  $("undo").disabled = state.last === null;
  if (!state.finished && !state.answers.includes(null)) {
    message(state.closes_in === null
      ? "All were answered before, some with Skip: change what you like, then press Finish."
      : `All are answered. This ends in ${Math.ceil(state.closes_in)} s: Undo takes the last answer back.`);
  }
  $("over").hidden = !state.finished;
  document.querySelector("main").hidden = $("strip").hidden = $("finish").hidden = state.finished;
  if (state.finished) {
    $("over-text").textContent = `${counts()}, ${count((a) => a === null)} without an answer.`;
    if ($("sure").open) $("sure").close();
  }
  drawStrip();
}

function message(text, bad = false) {
  $("message").textContent = text;
  $("message").className = bad ? "bad" : "";
}

// === One sample ===

async function go(place) {
  here = (place + asked.samples.length) % asked.samples.length;
  $("name").textContent = `Sample ${asked.samples[here]}`;
  $("title").textContent = `${asked.name}, cycle ${asked.cycle}: ${here + 1} of ${asked.samples.length}`;
  const middle = Math.floor(asked.size / 2);
  cut = { z: middle, y: middle, x: middle };
  showAnswers();
  showGuess();
  await load();
}

async function load() {
  const place = here, smooth = $("smooth").checked;
  shown = null;
  try {
    const voxels = await volume(place, smooth);
    if (place !== here || smooth !== $("smooth").checked) return;
    shown = { voxels, smooth, window: levels(voxels), projection: project(voxels, asked.size) };
    draw();
    for (let k = 1; k <= 2; k++) volume((here + k) % asked.samples.length, smooth).catch(() => {});
  } catch (error) {
    clear();
    if (error instanceof Refused) message(error.message, true);
    else connected(false);
  }
}

function showGuess() {
  const wanted = $("show-guess").checked, guess = asked.guesses[here], sure = asked.confidences[here];
  const said = sure === null ? "" : `, ${Math.round(100 * sure)}% sure`;
  $("guess").textContent = !wanted ? "" : guess < 0 ? "There is no model yet." : `The model: ${asked.classes[guess]}${said}`;
  [...$("classes").children].forEach((button, k) => button.classList.toggle("guess", wanted && k === guess));
}

// === Images ===

// The grey values that 1% of the voxels stay below and above.
function levels(values) {
  const histogram = new Uint32Array(256);
  for (const value of values) histogram[value]++;
  const part = 0.01 * values.length;
  let low = 0, high = 255;
  for (let sum = histogram[0]; sum < part && low < 255; sum += histogram[++low]);
  for (let sum = histogram[255]; sum < part && high > low; sum += histogram[--high]);
  return [low, Math.max(high, low + 1)];
}

// Means along z of the middle half, stretched over all grey values.
function project(voxels, n) {
  const sums = new Float32Array(n * n), quarter = Math.floor(n / 4);
  for (let z = quarter; z < n - quarter; z++) for (let k = 0; k < n * n; k++) sums[k] += voxels[z * n * n + k];
  const low = sums.reduce((a, b) => Math.min(a, b)), high = sums.reduce((a, b) => Math.max(a, b));
  return Uint8Array.from(sums, (value) => (255 * (value - low)) / Math.max(high - low, 1e-6));
}

// Image (row, column) of a view; the rows grow upwards on the screen.
function slice(axis) {
  const n = asked.size, at = cut[axis], { voxels } = shown;
  const start = { z: at * n * n, y: at * n, x: at }[axis];
  const [row, column] = { z: [n, 1], y: [n * n, 1], x: [n * n, n] }[axis];
  const image = new Uint8Array(n * n);
  for (let r = 0; r < n; r++) for (let c = 0; c < n; c++) image[r * n + c] = voxels[start + r * row + c * column];
  return image;
}

// The axes that go right and up in a view.
const ACROSS = { z: ["x", "y"], y: ["x", "z"], x: ["y", "z"] };
const scratch = document.createElement("canvas");

function paint(canvas, image, [low, high]) {
  const n = asked.size, side = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
  if (canvas.width !== side) canvas.width = canvas.height = side;
  scratch.width = scratch.height = n;
  const pixels = new ImageData(n, n);
  const middle = (low + high) / 2, half = ((high - low) / 2) * 2 ** ((50 - $("contrast").value) / 20);
  for (let r = 0; r < n; r++) {
    for (let c = 0; c < n; c++) {
      const grey = 127.5 * (1 + (image[r * n + c] - middle) / half), at = 4 * ((n - 1 - r) * n + c);
      pixels.data[at] = pixels.data[at + 1] = pixels.data[at + 2] = grey;
      pixels.data[at + 3] = 255;
    }
  }
  scratch.getContext("2d").putImageData(pixels, 0, 0);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = shown.smooth;
  context.imageSmoothingQuality = "high";
  context.drawImage(scratch, 0, 0, side, side);
  return context;
}

function draw() {
  if (!shown) return;
  for (const axis of AXES) {
    const context = paint($(axis), slice(axis), shown.window), side = context.canvas.width, each = side / asked.size;
    const [right, up] = ACROSS[axis];
    const x = (cut[right] + 0.5) * each, y = side - (cut[up] + 0.5) * each, gap = 3 * each;
    context.strokeStyle = "rgb(76 155 232 / .6)";
    context.lineWidth = devicePixelRatio;
    context.beginPath();
    // Only outside the middle: a line through a particle hides it.
    for (const [a, b] of [[0, 2 * each], [side - 2 * each, side]]) {
      context.moveTo(x, a);
      context.lineTo(x, b);
      context.moveTo(a, y);
      context.lineTo(b, y);
    }
    context.moveTo(x - gap / 6, y);
    context.lineTo(x + gap / 6, y);
    context.moveTo(x, y - gap / 6);
    context.lineTo(x, y + gap / 6);
    context.stroke();
    $(`${axis}-slider`).value = cut[axis];
    $(`${axis}-value`).textContent = cut[axis];
  }
  const context = paint($("projection"), shown.projection, levels(shown.projection));
  scaleBar(context);
}

// A round number of angstroms, about a third of the box.
function scaleBar(context) {
  const side = context.canvas.width, box = asked.size * asked.voxel_size, wanted = 0.4 * box;
  const power = 10 ** Math.floor(Math.log10(wanted));
  const length = [5, 2, 1].map((k) => k * power).find((value) => value <= wanted);
  const unit = devicePixelRatio, at = 10 * unit, wide = (length / box) * side;
  context.fillStyle = "rgb(0 0 0 / .6)";
  context.fillRect(at - 5 * unit, side - 34 * unit, Math.max(wide, 44 * unit) + 10 * unit, 28 * unit);
  context.fillStyle = "white";
  context.fillRect(at, side - 13 * unit, wide, 3 * unit);
  context.font = `${11 * unit}px system-ui, sans-serif`;
  context.fillText(`${length} Å`, at, side - 18 * unit);
}

function clear() {
  for (const id of [...AXES, "projection"]) $(id).width = $(id).height = 1;
}

function drawStrip() {
  const strip = $("strip"), total = state.answers.length, unit = devicePixelRatio;
  const width = (strip.width = Math.max(1, Math.round(strip.clientWidth * unit)));
  const height = (strip.height = 12 * unit), each = width / total, gap = each > 6 * unit ? 2 * unit : 0;
  const context = strip.getContext("2d");
  const colours = { skip: "#66717e", junk: "#b56a34", null: "#2a323c" };
  state.answers.forEach((given, k) => {
    context.fillStyle = isLabel(given) ? "#3f86cc" : colours[given];
    context.fillRect(k * each, 3 * unit, Math.max(each - gap, 1), height - 6 * unit);
  });
  context.fillStyle = "white";
  context.fillRect(here * each, 0, Math.max(each - gap, 2 * unit), 2 * unit);
  context.fillRect(here * each, height - 2 * unit, Math.max(each - gap, 2 * unit), 2 * unit);
}

// === Hands ===

function scroll(axis, by) {
  active = axis;
  cut[axis] = Math.min(asked.size - 1, Math.max(0, cut[axis] + by));
  draw();
}

function changeContrast(by) {
  $("contrast").value = Number($("contrast").value) + by;
  remember();
  draw();
}

function toggle(id) {
  $(id).checked = !$(id).checked;
  $(id).dispatchEvent(new Event("change"));
}

// What is kept over a reload of this tab.
function remember() {
  const kept = { contrast: $("contrast").value, smooth: $("smooth").checked, guess: $("show-guess").checked };
  sessionStorage.setItem("display", JSON.stringify(kept));
}

function restore() {
  const kept = JSON.parse(sessionStorage.getItem("display") ?? "null");
  if (!kept) return;
  $("contrast").value = kept.contrast;
  $("smooth").checked = kept.smooth;
  $("show-guess").checked = kept.guess;
}

const KEY_ACTIONS = {
  " ": () => answer("skip"),
  ".": () => answer("junk"),
  Delete: () => answer("junk"),
  Backspace: undo,
  ",": () => toggle("smooth"),
  "?": () => toggle("show-guess"),
  "+": () => changeContrast(5),
  "-": () => changeContrast(-5),
  "−": () => changeContrast(-5),
  ArrowLeft: () => go(here - 1),
  ArrowRight: () => go(here + 1),
  ArrowUp: () => scroll(active, 1),
  ArrowDown: () => scroll(active, -1),
};
const REPEATING = new Set(["+", "-", "ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"]);

function onKey(event) {
  if ($("sure").open || !state || state.finished || event.altKey) return;
  if (event.ctrlKey || event.metaKey) {
    if (event.key.toLowerCase() !== "z" || event.shiftKey || event.repeat) return;
    event.preventDefault();
    undo();
    return;
  }
  // A control that was reached with Tab keeps its own keys.
  const focused = document.activeElement;
  if (focused.matches("button, input[type=checkbox]") && [" ", "Enter"].includes(event.key)) return;
  if (focused.matches("input[type=range]") && event.key.startsWith("Arrow")) return;
  const action = KEY_ACTIONS[event.key];
  // Digits by their place: on some keyboards they need Shift.
  const digit = /^(?:Digit|Numpad)(\d)$/.exec(event.code);
  const key = digit ? digit[1] : event.key.toLowerCase();
  const label = event.shiftKey && !digit ? KEYS.length + SHIFTED.indexOf(key) : KEYS.indexOf(key);
  const letter = event.shiftKey && !digit ? SHIFTED.includes(key) : KEYS.includes(key);
  if (!action && !(letter && label < asked.classes.length)) return;
  event.preventDefault();
  if (event.repeat && !REPEATING.has(event.key)) return;
  if (action) action();
  else answer(label);
}

function keyName(label) {
  return KEYS[label]?.toUpperCase() ?? (label - KEYS.length < SHIFTED.length ? `⇧${SHIFTED[label - KEYS.length].toUpperCase()}` : "");
}

function point(axis, event) {
  const box = $(axis).getBoundingClientRect(), n = asked.size;
  const inside = (value) => Math.min(n - 1, Math.max(0, Math.floor(value * n)));
  const [right, up] = ACROSS[axis];
  cut[right] = inside((event.clientX - box.left) / box.width);
  cut[up] = inside(1 - (event.clientY - box.top) / box.height);
  active = axis;
  draw();
}

function connectControls() {
  for (const axis of AXES) {
    const canvas = $(axis), slider = $(`${axis}-slider`);
    slider.max = asked.size - 1;
    slider.addEventListener("input", () => scroll(axis, slider.value - cut[axis]));
    canvas.addEventListener("pointerenter", () => (active = axis));
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      point(axis, event);
    });
    canvas.addEventListener("pointermove", (event) => event.buttons & 1 && point(axis, event));
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      scroll(axis, event.deltaY < 0 ? 1 : -1);
    }, { passive: false });
  }
  asked.classes.forEach((name, label) => {
    const button = document.createElement("button"), key = document.createElement("kbd"), text = document.createElement("span");
    button.type = "button";
    button.title = text.textContent = name;
    key.textContent = keyName(label);
    button.append(key, text);
    button.addEventListener("click", () => answer(label));
    $("classes").append(button);
  });
  $("skip").addEventListener("click", () => answer("skip"));
  $("junk").addEventListener("click", () => answer("junk"));
  $("undo").addEventListener("click", undo);
  $("previous").addEventListener("click", () => go(here - 1));
  $("next").addEventListener("click", () => go(here + 1));
  $("finish").addEventListener("click", askToFinish);
  $("sure-no").addEventListener("click", () => $("sure").close());
  $("sure-yes").addEventListener("click", async () => {
    $("sure").close();
    await post("finish", {});
  });
  $("smooth-name").textContent = `Low-pass (${Number(asked.finest.toPrecision(3))} Å)`;
  $("smooth").addEventListener("change", () => { remember(); load(); });
  $("show-guess").addEventListener("change", () => { remember(); showGuess(); });
  $("contrast").addEventListener("input", () => { remember(); draw(); });
  $("strip").addEventListener("click", (event) => {
    const box = $("strip").getBoundingClientRect();
    go(Math.min(asked.samples.length - 1, Math.floor(((event.clientX - box.left) / box.width) * asked.samples.length)));
  });
  // What was clicked must not catch the keys that answer.
  document.addEventListener("pointerup", () => setTimeout(() => !$("sure").open && document.activeElement.blur(), 0));
  document.addEventListener("keydown", onKey);
  addEventListener("resize", () => { draw(); drawStrip(); });
}

async function start() {
  try {
    asked = await (await get("questions")).json();
    state = await (await get("state")).json();
  } catch {
    connected(false);
    setTimeout(start, POLL);
    return;
  }
  connected(true);
  document.title = `Label ${asked.name}, cycle ${asked.cycle}`;
  connectControls();
  restore();
  const first = state.answers.indexOf(null);
  await go(Math.max(first, 0));
  poll();
}

start();
