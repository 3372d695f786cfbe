// Owns the display of an answer: text, candidates, probability bars, timings; knows no request.

const LEAST_VISIBLE = 0.001; // probability; shorter bars would be invisible
const MOST_IN_TABLE = 8;

const at = (id) => document.getElementById(id);

/** An element with a class and children (texts or elements). */
export function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

/** 0.1234 as "12 %", 0.0123 as "1.2 %". */
export function percent(share) {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  return `${(100 * share).toFixed(share >= 0.1 ? 0 : 1)} %`;
}

/** Show the answers (best first, "" for none) to a question about `context`. */
export function showAnswers(context, answers) {
  const letters = Array.from(context); // offsets count code points, strings count UTF-16 units
  const spans = answers.filter((answer) => answer.answer);
  const [best] = answers;
  const card = at("answer-card");
  card.classList.toggle("none", !best.answer);
  if (best.answer) {
    at("answer-kind").textContent = "Answer";
    at("answer").textContent = best.answer;
    at("answer-note").textContent = `${percent(best.score)} probability · characters ${best.start} to ${best.end}`;
  } else {
    at("answer-kind").textContent = "No answer";
    at("answer").textContent = "The text does not seem to say.";
    at("answer-note").textContent = spans.length
      ? `${percent(best.score)} probability of no answer · what comes closest is below, and may be wrong`
      : "There is no word in it that could be an answer.";
  }
  showTokens(letters, best.tokens);
  showCandidates(letters, answers, best.tokens);
}

function showCandidates(letters, answers, tokens) {
  const chips = answers.filter((answer) => answer.answer || answers.length > 1).map((answer) => {
    const text = answer.answer || "no answer";
    const chip = element("button", "", element("span", "", text), element("small", "", percent(answer.score)));
    chip.type = "button";
    chip.addEventListener("click", () => choose(chip, answer));
    return [chip, answer];
  });
  const choose = (chip, answer) => {
    for (const [other] of chips) other.setAttribute("aria-pressed", String(other === chip));
    showText(letters, answer, tokens);
  };
  at("others-box").hidden = chips.length < 2;
  at("candidates").replaceChildren(...chips.map(([chip]) => element("li", "", chip)));
  if (chips.length) choose(...chips[0]);
  else showText(letters, { answer: "" }, tokens);
}

/** The text with a mark around the answer, and two bars under each token: start and end probability. */
function showText(letters, answer, tokens) {
  const marked = answer.answer ? [answer.start, answer.end] : [];
  const barred = new Map(); // [end, index] of each token with a visible bar, by its start
  const edges = new Set([0, ...marked, letters.length]);
  tokens.offsets.forEach(([start, end], i) => {
    if (Math.max(tokens.start[i], tokens.end[i]) < LEAST_VISIBLE) return;
    barred.set(start, [end, i]);
    edges.add(start).add(end);
  });
  const mark = element("mark");
  const parts = document.createDocumentFragment();
  let likeliest = null; // the token to scroll to if there is no mark
  let most = 0;
  const sorted = [...edges].sort((a, b) => a - b);
  sorted.slice(1).forEach((to, i) => {
    const from = sorted[i];
    const text = letters.slice(from, to).join("");
    const [end, index] = barred.get(from) ?? [];
    const piece = end === to ? barredToken(text, tokens.start[index], tokens.end[index]) : text;
    if (end === to && tokens.start[index] > most) [likeliest, most] = [piece, tokens.start[index]];
    const inside = from >= marked[0] && to <= marked[1];
    if (inside && !mark.hasChildNodes()) parts.append(mark);
    (inside ? mark : parts).append(piece);
  });
  const paper = at("text");
  paper.replaceChildren(parts);
  const shown = marked.length ? mark : likeliest;
  paper.scrollTop = shown ? shown.offsetTop - paper.clientHeight / 3 : 0;
}

function barredToken(text, start, end) {
  const piece = element("span", "token", text);
  piece.style.setProperty("--s", width(start));
  piece.style.setProperty("--e", width(end));
  piece.title = `start ${percent(start)}, end ${percent(end)}`;
  return piece;
}

const width = (share) => (share < LEAST_VISIBLE ? "0px" : `max(2px, ${(100 * Math.min(share, 1)).toFixed(1)}%)`);

/** The most probable tokens as a table, for screen readers. */
function showTokens(letters, tokens) {
  const rows = tokens.offsets.map(([start, end], i) => [letters.slice(start, end).join(""), tokens.start[i], tokens.end[i]]);
  rows.sort((a, b) => Math.max(b[1], b[2]) - Math.max(a[1], a[2]));
  at("tokens").replaceChildren(
    ...rows.slice(0, MOST_IN_TABLE).map(([text, start, end]) => {
      const head = element("th", "", text);
      head.scope = "row";
      return element("tr", "", head, element("td", "", percent(start)), element("td", "", percent(end)));
    }),
  );
}

/** Timings: stages [[name, label, ms]] in the service, and the total round trip in ms. */
export function showTime(stages, total) {
  at("total").textContent = `${total.toFixed(0)} ms in all, network included`;
  at("time-bar").replaceChildren(
    ...stages.map(([, , ms], i) => {
      const part = element("span", `s${i + 1}`);
      part.style.flexGrow = String(ms);
      return part;
    }),
  );
  at("stages").replaceChildren(
    ...stages.map(([, label, ms], i) =>
      element("div", "", element("dt", `s${i + 1}`, label), element("dd", "", `${ms.toFixed(ms < 10 ? 2 : 1)} ms`)),
    ),
  );
}

/** The model and its runtime, from /info. */
export function showInfo(facts) {
  const { model, cpu, service } = facts;
  const name = model.path?.split("/").filter(Boolean).pop() ?? model.source?.id ?? "unnamed";
  const source = model.source?.id && model.source.id !== name ? `${name}, from ${model.source.id}` : name;
  const bytes = Object.values(model.files ?? {}).reduce((sum, file) => sum + (file.bytes ?? 0), 0);
  const measured = (model.quality?.evaluation ?? []).filter(({ chosen }) => chosen?.f1 !== undefined);
  const quality = measured.map(({ file, chosen }) => {
    const data = file.replace(/^squad-dev-(v[\d.]+)\.json$/, "SQuAD $1").replace(/\.json$/, "");
    return `F1 ${chosen.f1.toFixed(1)} on ${data}`;
  });
  const graph = model.graph ? `, ${model.graph} graph` : "";
  const rows = [
    ["Name", source],
    ["Kind", [model.architecture, model.precision].filter(Boolean).join(", ")],
    ["Size", bytes ? `${(bytes / 1e6).toFixed(1)} MB` : ""],
    ["Quality", quality.join("; ") || "not measured"],
    ["Run by", `ONNX Runtime ${service.onnxruntime}${graph}, ${cpu.threads} ${cpu.threads === 1 ? "thread" : "threads"}`],
    ["On", cpu.model],
    ["Service", service.version],
  ];
  at("info").replaceChildren(
    ...rows.filter(([, value]) => value).map(([label, value]) =>
      element("div", "", element("dt", "", label), element("dd", "", String(value))),
    ),
  );
  at("model").textContent = `Model: ${name}${quality.length ? ` · ${quality[0]}` : ""}`;
}
