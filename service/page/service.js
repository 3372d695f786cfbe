// Owns the HTTP requests of the page; knows no element of the page.

const PREDICT = new URL("predict", document.baseURI);
export const CANDIDATES = 6;
const STAGES = [["tokenize", "Tokenize"], ["queue", "Wait"], ["infer", "Infer"], ["decode", "Decode"]];

// Titles by status; the message below is the service's.
const TITLES = {
  400: "The service could not read the request",
  401: "An API key is needed",
  403: "This API key is not accepted",
  413: "The text is too long",
  422: "The request is invalid",
  429: "The service is busy",
  503: "The service is not ready",
  504: "The answer took too long",
};

/** An error for display: title, message, invalid field, seconds until a retry. */
export class Problem extends Error {
  constructor(kind, title, sentence, { field = null, wait = null, status = 0 } = {}) {
    super(sentence);
    Object.assign(this, { kind, title, field, wait, status });
  }
}

/** The request body for everything that the page shows. */
export function requestBody(question, context, mayDecline) {
  return {
    inputs: { question, context },
    parameters: { top_k: CANDIDATES, handle_impossible_answer: mayDecline, token_probabilities: true },
  };
}

/** Ask; gives { answers, stages: [[name, label, ms]], total: ms } or throws a Problem. */
export async function ask(question, context, mayDecline, key, signal) {
  const begun = performance.now();
  const response = await send(PREDICT, key, {
    method: "POST",
    body: JSON.stringify(requestBody(question, context, mayDecline)),
    signal,
  });
  const answers = await json(response);
  return { answers, stages: stages(response.headers.get("Server-Timing")), total: performance.now() - begun };
}

/** The response of /info. */
export async function info(key) {
  return json(await send(new URL("info", document.baseURI), key, {}));
}

/** The examples, each { title, question, context }. */
export async function examples() {
  return json(await send(new URL("page/examples.json", document.baseURI), "", {}));
}

/** The same request as a curl command. */
export function curl(question, context, mayDecline, withKey) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const body = { inputs: { question, context } };
  if (mayDecline) body.parameters = { handle_impossible_answer: true };
  const lines = [`curl -s ${quoted(PREDICT.href)}`, "  -H 'Content-Type: application/json'"];
  if (withKey) lines.push('  -H "Authorization: Bearer $API_KEY"');
  lines.push(`  -d ${quoted(JSON.stringify(body))}`);
  return lines.join(" \\\n");
}

async function send(url, key, options) {
  const headers = { Accept: "application/json" };
  if (options.body) headers["Content-Type"] = "application/json";
  if (key) headers.Authorization = `Bearer ${key}`;
  try {
    return await fetch(url, { ...options, headers, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const sentence = "Nothing came back. The service may have stopped, or the network is down.";
    throw new Problem("No connection", "The service cannot be reached", sentence);
  }
}

async function json(response) {
  const body = await response.json().catch(() => null);
  if (response.ok && body !== null) return body;
  const { status } = response;
  if (response.ok) {
    const sentence = "Something between this page and the service answered in its place. Reload the page.";
    throw new Problem(`Error ${status}`, "The reply is not the service's", sentence, { status });
  }
  const told = body?.error;
  const title = TITLES[status] ?? (status < 500 ? "The request was refused" : "The service failed");
  const sentence = told?.message ?? "It did not say why.";
  const wait = Number(response.headers.get("Retry-After")) || null;
  const code = told?.code ? `, ${told.code.replaceAll("_", " ")}` : "";
  throw new Problem(`Error ${status}${code}`, title, sentence, { field: told?.field ?? null, wait, status });
}

function stages(header) {
  const found = Object.fromEntries(
    [...(header ?? "").matchAll(/([\w-]+)[^,]*?;dur=([\d.]+)/g)].map(([, name, ms]) => [name, Number(ms)]),
  );
  return STAGES.filter(([name]) => name in found).map(([name, label]) => [name, label, found[name]]);
}
