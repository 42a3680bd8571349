// What has been changed and not been saved yet; it outlives a reload of the page.

const STORED = `drafts of ${location.pathname}`; // a tab may come to another run's page at the same port

const keyOf = ({ video_id, object_id, frame }) => JSON.stringify([video_id, object_id, frame ?? null]);

export class Drafts {
  constructor() {
    this.held = new Map();
    this.history = [];
    try {
      for (const draft of JSON.parse(sessionStorage.getItem(STORED) ?? "[]")) this.held.set(keyOf(draft), draft);
    } catch {
      sessionStorage.removeItem(STORED);
    }
  }

  get all() {
    return [...this.held.values()];
  }

  of(video_id, frame) {
    return this.all.filter((draft) => draft.video_id === video_id && draft.frame === frame);
  }

  get(video_id, object_id, frame) {
    return this.held.get(keyOf({ video_id, object_id, frame }));
  }

  put(draft) {
    this.change(keyOf(draft), draft);
  }

  drop(draft) {
    this.change(keyOf(draft), undefined);
  }

  change(key, draft) {
    this.history.push([key, this.held.get(key)]);
    this.set(key, draft);
  }

  set(key, draft) {
    if (draft === undefined) this.held.delete(key);
    else this.held.set(key, draft);
    try {
      sessionStorage.setItem(STORED, JSON.stringify(this.all));
    } catch {
      // too much for the browser to keep; it is still in memory
    }
  }

  /** Takes the last change back, and returns what it was about. */
  undo() {
    const last = this.history.pop();
    if (!last) return null;
    const [key, before] = last;
    this.set(key, before);
    const [video_id, object_id, frame] = JSON.parse(key);
    return { video_id, object_id, frame };
  }

  /** These have been saved: they are no drafts any more, unless they have changed again since. */
  saved(drafts) {
    for (const draft of drafts) if (this.held.get(keyOf(draft)) === draft) this.set(keyOf(draft), undefined);
    this.history = [];
  }
}

/** Saves the drafts and returns the corrections that are there then. Nobody else's are lost: if others have been saved
 * meanwhile, only what is about the same places is asked about. */
export async function save(api, known, drafts) {
  const changes = drafts.map(({ video_id, object_id, frame, counts, absent, category }) => ({
    video_id, object_id, frame, counts: counts ?? null, absent: Boolean(absent), category: category ?? null,
  }));
  try {
    return await api.post("corrections", { version: known.version, changes });
  } catch (error) {
    if (error.status !== 409) throw error;
    const now = await api.get("corrections");
    const before = new Map(known.rows.map((row) => [keyOf(row), JSON.stringify(row)]));
    const others = now.rows.filter((row) => before.get(keyOf(row)) !== JSON.stringify(row));
    const ours = new Set(drafts.map(keyOf));
    const both = others.filter((row) => ours.has(keyOf(row)));
    if (!both.length) return api.post("corrections", { version: now.version, changes });
    const clash = new Error(
      `frame ${both[0].frame} of object ${both[0].object_id} has been saved in another tab meanwhile; ` +
      "save again to put yours in its place, or undo",
    );
    clash.corrections = now;
    throw clash;
  }
}
