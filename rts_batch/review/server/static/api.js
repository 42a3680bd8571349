// What the server is asked. Every address is relative: the page's own begins with the token.

export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

async function answer(response) {
  if (response.ok) return response.json();
  let text = `the server answered ${response.status}`;
  try {
    text = (await response.json()).error ?? text;
  } catch {
    // no JSON: the guard's own words, or none
  }
  throw new Refused(response.status, text);
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Refused(0, "the server does not answer; is rts-batch review still running?");
  }
  return response;
}

const query = (values) => new URLSearchParams(values).toString();

export const get = async (name, values = {}) => answer(await ask(`api/${name}?${query(values)}`));

export const post = async (name, content = {}) =>
  answer(await ask(`api/${name}`, { method: "POST", body: JSON.stringify(content) }));

/** A frame as a picture that can be drawn, of about this width or, without one, of its own. */
export async function frame(id, index, width = null) {
  const response = await ask(`api/frame?${query(width === null ? { id, index } : { id, index, width })}`);
  if (!response.ok) await answer(response);
  return createImageBitmap(await response.blob());
}
