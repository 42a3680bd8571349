// The lists beside the player, drawn anew from what is known. Every text reaches the page as text.

export const $ = (id) => document.getElementById(id);

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

const percent = (share) => `${(100 * share).toFixed(share && share < 0.1 ? 1 : 0)}\u00a0%`;

export function describeVideo(video) {
  if (video.problem) return video.problem;
  if (video.about) return video.about;
  const quality = video.quality === null ? "" : `mean ${video.measure} ${video.quality.toFixed(2)}, `;
  const parts = [`${quality}${video.frames} frames`];
  if (video.lost) parts.push(`${percent(video.lost)} lost`);
  if (video.uncertain) parts.push(`${percent(video.uncertain)} uncertain`);
  return parts.join(", ");
}

export function listVideos(videos, current, choose) {
  const list = $("videos");
  const pick = $("video-pick");
  list.replaceChildren(
    ...videos.map((video) => {
      const button = element("button", { type: "button" }, video.video_id, element("small", {}, describeVideo(video)));
      button.addEventListener("click", () => choose(video.video_id));
      if (video.video_id === current) button.setAttribute("aria-current", "true");
      return element("li", {}, button);
    }),
  );
  pick.replaceChildren(
    ...videos.map((video) =>
      element("option", { value: video.video_id, selected: video.video_id === current }, `${video.video_id}: ${describeVideo(video)}`),
    ),
  );
  pick.onchange = () => choose(pick.value);
}

/** The videos that have no masks, and why. */
export function listFailed({ count, videos }) {
  const box = $("failed");
  box.hidden = !count;
  box.querySelector("summary").textContent = `${count} failed`;
  const more = count - videos.length;
  box.querySelector("ul").replaceChildren(
    ...videos.map(({ video_id, reason }) => element("li", {}, video_id, element("small", {}, reason))),
    ...(more ? [element("li", {}, `and ${more} more`)] : []),
  );
}

export function listTargets(targets, categories, { selected, readOnly, choose, rename, value }) {
  $("targets").replaceChildren(
    ...targets.map((target, place) => {
      const swatch = element("i");
      swatch.style.background = target.colour;
      const name = element("span", {}, `object ${target.label}`);
      if (place < 9) name.append(element("kbd", { title: "The key that chooses it" }, String(place + 1)));
      const input = element("input", {
        value: target.category ?? "", placeholder: "category", disabled: readOnly, ariaLabel: `Category of object ${target.label}`,
      });
      input.setAttribute("list", "categories");
      input.addEventListener("change", () => rename(target, input.value.trim()));
      const item = element("li", {}, swatch, name, element("small", {}, value(target)), input);
      item.setAttribute("aria-selected", String(target.object_id === selected));
      item.addEventListener("click", (event) => event.target === input || choose(target.object_id));
      return item;
    }),
  );
  const known = new Set([...categories, ...targets.map((target) => target.category).filter(Boolean)]);
  $("categories").replaceChildren(...[...known].map((category) => element("option", { value: category })));
}

export function listSaved(rows, { readOnly, go, remove, label }) {
  $("saved").replaceChildren(
    ...rows.map((row) => {
      const what = row.absent ? "absent" : row.mask ? "mask" : row.box ? "box" : "category";
      const link = element("button", { type: "button" }, `frame ${row.frame}, object ${label(row.object_id)}: ${what}`);
      link.addEventListener("click", () => go(row.frame));
      const bin = element("button", { type: "button", title: "Remove", ariaLabel: `Remove frame ${row.frame}`, disabled: readOnly }, "✕");
      bin.addEventListener("click", () => remove(row));
      return element("li", {}, link, bin);
    }),
  );
}

export function say(text, bad = false) {
  const status = $("status");
  status.textContent = text;
  status.classList.toggle("bad", bad);
}
