// The run itself: what the server says of it, and tracking corrected videos again.

import * as api from "./api.js";
import { saveDrafts } from "./edit.js";
import { $, listFailed, say } from "./panels.js";
import { readOnly, state, takeCorrections } from "./state.js";
import { openVideo, showLists } from "./view.js";

const POLL = 1000;
const LOCKED_POLL = 5000;
let waiting = null;

export async function loadRun() {
  const [run, corrections] = await Promise.all([api.get("run"), api.get("corrections")]);
  state.videos = run.videos;
  state.kind = run.kind;
  state.categories = run.categories;
  document.body.dataset.kind = run.kind;
  document.title = run.kind === "run" ? `Review of ${run.title}` : run.title;
  $("title").textContent = run.title;
  listFailed(run.failed);
  state.locked = run.locked;
  state.pending = run.pending;
  takeCorrections(corrections);
  showRedo(run.redo);
  // Somebody else is at work on the run: look again until it may be changed.
  if (run.locked && run.redo.state !== "running") {
    waiting ??= setTimeout(() => {
      waiting = null;
      loadRun().then(() => (state.locked ? showLists() : reload()), () => {});
    }, LOCKED_POLL);
  }
}

export async function startRedo() {
  if (readOnly()) return;
  await saveDrafts();
  if (!state.pending) return;
  try {
    showRedo(await api.post("redo", { bidirectional: $("redo-both").checked }));
  } catch (error) {
    say(error.message, true);
  }
}

export function showRedo(found) {
  const was = state.redo;
  state.redo = found.state;
  const running = found.state === "running";
  $("redo-bar").hidden = $("redo-stop").hidden = !running;
  if (running) {
    const [video] = found.videos ?? [];
    const bar = $("redo-bar");
    if (video?.expected) Object.assign(bar, { max: video.expected, value: video.frames });
    else bar.removeAttribute("value");
    $("redo-text").textContent = video
      ? `tracking ${video.video_id}: ${video.frames} of ${video.expected ?? "?"} frames`
      : "starting …";
    setTimeout(pollRedo, POLL);
  } else if (was === "running") {
    const failures = found.summary?.failures?.length ?? 0;
    $("redo-text").textContent = found.state === "done" ? "tracked again" : failures ? `${failures} failed` : "failed";
    if (found.state === "failed") say(found.message ?? "the run failed", true);
    else say("tracked again; these are the new masks");
    reload();
  }
  showLists();
}

export async function pollRedo() {
  try {
    const found = await api.get("redo");
    state.pending = found.pending;
    state.locked = found.locked;
    showRedo(found);
  } catch {
    setTimeout(pollRedo, POLL);
  }
}

export async function reload() {
  const { video, frame } = state;
  await loadRun();
  await openVideo(video?.video_id ?? state.videos[0].video_id, frame);
}
