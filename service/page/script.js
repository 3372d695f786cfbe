// Owns the interaction: input, drag and drop, buttons, and the visible panel.

import { element, showAnswers, showInfo, showTime } from "./answer.js";
import { ask, curl, examples, info, Problem } from "./service.js";

const KEY = "qa-api-key"; // in sessionStorage
const at = (id) => document.getElementById(id);
const [form, context, question, key] = ["form", "context", "question", "key"].map(at);
let running = null; // AbortController of the pending request
let waiting = null; // countdown until a retry is allowed
let mostBytes = Infinity;

function show(panel) {
  for (const id of ["empty", "problem", "found"]) at(id).hidden = id !== panel;
}

function showProblem(problem) {
  show("problem");
  at("problem-kind").textContent = problem.kind;
  at("problem-title").textContent = problem.title;
  at("problem-text").textContent = problem.message;
  const field = { question, context, inputs: context }[problem.field?.split(".").pop()] ?? null;
  const needsKey = problem.status === 401 || problem.status === 403;
  if (needsKey) at("key-box").open = true;
  for (const box of [question, context, key]) {
    const faulty = box === field || (needsKey && box === key);
    box.setAttribute("aria-invalid", String(faulty));
    at(`${box.id}-problem`).textContent = faulty ? problem.title : "";
    if (faulty) box.focus();
  }
  const again = at("again");
  again.hidden = field !== null || needsKey;
  if (again.hidden === false) reveal();
  clearInterval(waiting);
  let left = Math.min(problem.wait ?? 0, 60);
  const count = () => {
    again.disabled = left > 0;
    again.textContent = left > 0 ? `Try again in ${left} s` : "Try again";
    if (left-- <= 0) clearInterval(waiting);
  };
  count();
  if (left >= 0 && again.disabled) waiting = setInterval(count, 1000);
}

/** On narrow screens, where the answer is below the form, scroll to it. */
function reveal() {
  if (matchMedia("(max-width: 860px)").matches) at("result").scrollIntoView();
}

/** Client-side validation; null if the form is valid. */
function check() {
  if (!context.value.trim()) {
    return new Problem("Nothing to read", "There is no text yet", "Paste a text or drop a .txt file, then ask.", { field: "context" });
  }
  if (!question.value.trim()) {
    return new Problem("Nothing to answer", "There is no question yet", "Type what you want to know about the text.", { field: "question" });
  }
  const bytes = new TextEncoder().encode(JSON.stringify(context.value)).length + 1000;
  return bytes > mostBytes ? tooLong() : null;
}

function tooLong() {
  const most = Math.floor(mostBytes / 1000).toLocaleString("en");
  return new Problem("Too long", "The text is too long", `This service takes ${most} kB at once. Shorten the text.`, { field: "context" });
}

async function submit() {
  running?.abort();
  const mine = (running = new AbortController());
  for (const box of [question, context, key]) {
    box.removeAttribute("aria-invalid");
    at(`${box.id}-problem`).textContent = "";
  }
  const problem = check();
  busy(!problem); // the previous request has been aborted in any case
  if (problem) return showProblem(problem);
  const asked = [question.value.trim(), context.value, at("decline").checked];
  try {
    const { answers, stages, total } = await ask(...asked, key.value.trim(), mine.signal);
    show("found");
    showAnswers(asked[1], answers);
    showTime(stages, total);
    at("curl").textContent = curl(...asked, key.value.trim() !== "");
    at("status").textContent = `${at("answer-kind").textContent}: ${at("answer").textContent}`;
    reveal();
  } catch (error) {
    if (error.name === "AbortError") return; // superseded by another question
    if (!(error instanceof Problem)) console.error(error);
    showProblem(error instanceof Problem ? error : new Problem("Error", "This page failed", "Reload it and try again."));
  } finally {
    if (running === mine) busy(false);
  }
}

function busy(is) {
  at("ask").setAttribute("aria-disabled", String(is));
  at("ask").textContent = is ? "Asking…" : "Ask";
  at("found").setAttribute("aria-busy", String(is));
  if (is) at("status").textContent = "Asking";
}

async function take(file) {
  if (!file) return;
  if (file.size > mostBytes) return showProblem(tooLong());
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
    if (text.includes("\0")) throw new TypeError();
    fill(text, question.value);
    question.focus();
  } catch {
    showProblem(new Problem("File", `${file.name} is not a text file`, "It must be plain text in UTF-8. Copy the text and paste it instead.", { field: "context" }));
  }
}

function fill(text, asked) {
  context.value = text;
  question.value = asked;
  measure();
}

function measure() {
  const length = Array.from(context.value).length;
  at("size").textContent = length ? `${length.toLocaleString("en")} characters` : "";
}

async function loadInfo() {
  try {
    const facts = await info(key.value.trim());
    mostBytes = facts.limits?.max_body_bytes ?? Infinity;
    showInfo(facts);
  } catch (problem) {
    at("info").replaceChildren(element("div", "", element("dt", "", "Not told"), element("dd", "", problem.message)));
  }
}

async function loadExamples() {
  const list = await examples().catch(() => []);
  at("examples").replaceChildren(
    ...list.map((example) => {
      const button = element("button", "", example.question, element("small", "", example.title));
      button.type = "button";
      button.addEventListener("click", () => {
        fill(example.context, example.question);
        submit();
      });
      return element("li", "", button);
    }),
  );
}

async function copy() {
  const text = at("curl").textContent;
  try {
    await navigator.clipboard.writeText(text);
    at("copy").textContent = "Copied";
  } catch { // no permission or no HTTPS: select the text for Ctrl + C
    getSelection().selectAllChildren(at("curl"));
    at("copy").textContent = "Selected: press Ctrl + C";
  }
  at("status").textContent = at("copy").textContent;
  setTimeout(() => (at("copy").textContent = "Copy"), 3000);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
context.addEventListener("input", measure);
context.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit();
});
at("again").addEventListener("click", submit);
at("copy").addEventListener("click", copy);
at("open").addEventListener("click", () => at("file").click());
at("file").addEventListener("change", (event) => {
  take(event.target.files[0]);
  event.target.value = "";
});
key.value = sessionStorage.getItem(KEY) ?? "";
key.addEventListener("change", () => {
  sessionStorage.setItem(KEY, key.value.trim());
  loadInfo();
});

const hasFile = (event) => event.dataTransfer?.types.includes("Files");
addEventListener("dragover", (event) => {
  if (!hasFile(event)) return;
  event.preventDefault();
  at("drop").hidden = false;
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) at("drop").hidden = true;
});
addEventListener("drop", (event) => {
  if (!hasFile(event)) return;
  event.preventDefault();
  at("drop").hidden = true;
  take(event.dataTransfer.files[0]);
});

loadExamples();
loadInfo();
