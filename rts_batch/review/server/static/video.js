// One video: its numbers, and its frames and masks as they are asked for.

import * as api from "./api.js";
import { decode } from "./rle.js";

const FRAMES = [14, 48];
const PICTURE_BYTES = 256 * 2 ** 20;
const MASKS_AT_ONCE = 32;
const MASK_FRAMES = 320;
const WIDTHS = 160; // pictures of few widths, so that a window made a little wider asks for nothing new

export const COLOURS = ["#e63c3c", "#3ca0f0", "#fabe28", "#50c878", "#be5adc", "#f08228"];

function unpack(text, kind) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return new kind(bytes.buffer);
}

/** Values used last, up to a number. */
class Recent {
  constructor(most, drop = () => {}) {
    this.most = most;
    this.drop = drop;
    this.held = new Map();
  }
  get(key) {
    const value = this.held.get(key);
    if (value !== undefined) {
      this.held.delete(key);
      this.held.set(key, value);
    }
    return value;
  }
  set(key, value) {
    this.held.set(key, value);
    while (this.held.size > this.most) {
      const [oldest, gone] = this.held.entries().next().value;
      this.held.delete(oldest);
      this.drop(gone);
    }
  }
  delete(key) {
    this.held.delete(key);
  }
}

export class Video {
  constructor(numbers) {
    Object.assign(this, numbers);
    this.targets = numbers.targets.map((target, place) => ({
      ...target,
      colour: COLOURS[place % COLOURS.length],
      frames: unpack(target.frames, Int32Array),
      qualities: unpack(target.qualities, Uint8Array),
      areas: unpack(target.areas, Int32Array),
      states: unpack(target.states, Uint8Array),
    }));
    const fitting = PICTURE_BYTES / (4 * this.width * this.height);
    this.pictures = new Recent(Math.round(Math.min(FRAMES[1], Math.max(FRAMES[0], fitting))));
    this.rows = new Recent(Math.ceil(MASK_FRAMES / MASKS_AT_ONCE));
  }

  static async open(id) {
    return new Video(await api.get("video", { id }));
  }

  /** Adds a target that the run does not know yet. */
  addTarget(category = null, object_id = 1 + Math.max(0, ...this.targets.map((target) => target.object_id))) {
    const target = {
      object_id,
      label: String(object_id),
      category,
      measure: "quality",
      colour: COLOURS[this.targets.length % COLOURS.length],
      frames: new Int32Array(),
      qualities: new Uint8Array(),
      areas: new Int32Array(),
      states: new Uint8Array(),
      state_names: [],
    };
    this.targets.push(target);
    return target;
  }

  target(id) {
    return this.targets.find((target) => target.object_id === id);
  }

  time(frame) {
    const known = this.times[frame - this.first];
    return known ?? (this.fps ? frame / this.fps : null);
  }

  /** Quality, area and state of a target on a frame; null where it has no row. */
  at(target, frame) {
    let low = 0;
    let high = target.frames.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (target.frames[middle] < frame) low = middle + 1;
      else high = middle;
    }
    if (target.frames[low] !== frame) return null;
    const quality = target.qualities[low];
    return {
      quality: quality === 255 ? null : quality / 200,
      area: target.areas[low],
      state: target.state_names[target.states[low]],
    };
  }

  /** A frame as a picture; it need not be wider than it is shown. */
  picture(frame, shown) {
    const width = Math.min(this.width, Math.ceil(shown / WIDTHS) * WIDTHS);
    let found = this.pictures.get(frame);
    if (!found || found.width < width) {
      found = { width, picture: api.frame(this.video_id, frame, width < this.width ? width : null) };
      found.picture.catch(() => this.pictures.delete(frame)); // to be asked for again
      this.pictures.set(frame, found);
    }
    return found.picture;
  }

  /** Object id → counts of its mask on a frame. */
  async counts(frame) {
    const piece = Math.floor(frame / MASKS_AT_ONCE);
    let found = this.rows.get(piece);
    if (!found) {
      found = api.get("masks", { id: this.video_id, first: piece * MASKS_AT_ONCE, count: MASKS_AT_ONCE });
      found.catch(() => this.rows.delete(piece));
      this.rows.set(piece, found);
    }
    return new Map(((await found)[frame] ?? []).map(([id, counts]) => [id, counts]));
  }

  decode(counts) {
    return decode(counts, this.height, this.width);
  }
}
