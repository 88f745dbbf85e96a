/** The server, as the page asks it; what it answers is described in /openapi.json. */

/** Why there is no answer, in a sentence for a person. */
export class Problem extends Error {
  /** @param {number} status Of the answer; 0: there was none. */
  constructor(detail, status = 0) {
    super(detail);
    this.status = status;
  }

  /** Whether the same request may be answered another time. */
  get passes() {
    return [0, 401, 408].includes(this.status) || this.status >= 500;
  }
}

/**
 * @param {(wrong: boolean) => Promise<string|null>} askForToken Called when the server wants a token, or refuses the one it got; null: there is none.
 */
export function makeApi(askForToken) {
  let token = null; // in memory only
  let asking = null; // one form, however many requests wait for it

  async function ask(path, form = null, signal = undefined) {
    for (let asked = false; ; asked = true) {
      const headers = token === null ? {} : { Authorization: `Bearer ${token}` };
      const answer = await reach(path, { method: form ? "POST" : "GET", body: form, headers, signal });
      if (answer.ok) return whole(answer.json());
      const problem = await problemOf(answer);
      if (answer.status !== 401) throw problem;
      asking ??= sendableToken(asked || token !== null).finally(() => (asking = null));
      const given = await asking;
      if (given === null) throw problem;
      token = given;
    }
  }

  /** What cannot stand in a header is no token of any server. */
  async function sendableToken(wrong) {
    const given = await askForToken(wrong);
    return given === null || /^[\x20-\x7e]+$/.test(given) ? given : sendableToken(true);
  }

  return {
    labels: () => ask("/v1/labels"),
    model: () => ask("/v1/model"),

    /** The drawing of a body, as text. */
    async figure() {
      const answer = await reach("/body.svg", {});
      if (!answer.ok) throw await problemOf(answer);
      return whole(answer.text());
    },

    /** @param {string[]} beside What is wanted beside lesions and site. */
    async predict(file, beside, signal) {
      const form = withFile("files", file, { with: beside.join(",") });
      return (await ask("/v1/predict", form, signal)).results[0];
    },

    attention: (file, task, names, signal) => ask("/v1/attention", withFile("file", file, { task, name: names }), signal),
  };
}

const reach = (path, options) => orProblem(fetch(path, { ...options, cache: "no-store", credentials: "omit" }), "The server cannot be reached");

/** What is read of an answer, which may break off midway. */
const whole = (reading) => orProblem(reading, "The answer of the server broke off");

async function orProblem(promise, detail) {
  try {
    return await promise;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(`${detail}; is it still running?`);
  }
}

async function problemOf(answer) {
  const type = answer.headers.get("content-type") ?? "";
  if (!type.startsWith("application/problem+json")) return new Problem(`The server answered ${answer.status} and did not say why.`, answer.status);
  return new Problem((await whole(answer.json())).detail, answer.status);
}

function withFile(field, file, values) {
  const form = new FormData();
  form.append(field, file, file.name || "photograph");
  for (const [name, value] of Object.entries(values)) {
    for (const item of [value].flat()) if (item) form.append(name, item);
  }
  return form;
}
