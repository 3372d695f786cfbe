// Shows openapi.json: every route with its parameters, body and replies, and a form that asks the service.
const base = new URL(".", document.baseURI);

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// A schema as a line of a table's cell: its type, bounds and choices; named ones are links.
function typeOf(schema = {}) {
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    return [element("a", { href: `#schema-${name}` }, name)];
  }
  if (schema.anyOf) return schema.anyOf.flatMap((part, at) => (at ? [" or ", ...typeOf(part)] : typeOf(part)));
  if (schema.enum) return [schema.enum.map((value) => JSON.stringify(value)).join(" or ")];
  if ("const" in schema) return [JSON.stringify(schema.const)];
  const inner = schema.items || schema.contains;
  if (schema.prefixItems) return ["[", ...schema.prefixItems.flatMap((part, at) => (at ? [", ", ...typeOf(part)] : typeOf(part))), "]"];
  if (inner && schema.type?.includes("array")) return ["list of ", ...typeOf(inner), ...bounds(schema)];
  if (schema.properties) {
    const fields = Object.entries(schema.properties);
    return ["{", ...fields.flatMap(([key, part], at) => [at ? `, ${key}: ` : `${key}: `, ...typeOf(part)]), "}"];
  }
  return [[schema.type ?? "anything"].flat().join(" or "), ...bounds(schema)];
}

function bounds({ minimum, maximum, minLength, minItems, maxItems, pattern }) {
  const told = { "at least": minimum, "at most": maximum, "characters at least": minLength, matching: pattern };
  if (maxItems) told["items"] = `${minItems ?? 0} to ${maxItems}`;
  return Object.entries(told).filter(([, value]) => value !== undefined).map(([name, value]) => `, ${name} ${value}`);
}

function table(heads, rows) {
  const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text)));
  const body = rows.map((cells) => element("tr", {}, ...cells.map((cell) => element("td", {}, ...[cell].flat()))));
  const made = element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
  return element("div", { class: "wide", tabindex: "0", role: "group", "aria-label": heads.join(", ") }, made);
}

function fields(schema) {
  const required = new Set(schema.required ?? []);
  return table(
    ["field", "type", "default"],
    Object.entries(schema.properties ?? {}).map(([name, part]) => [
      name,
      typeOf(part),
      required.has(name) ? "required" : "default" in part ? JSON.stringify(part.default) : "",
    ]),
  );
}

function form(method, path, parameters, body) {
  let address = path;
  for (const { name, schema } of parameters.filter((parameter) => parameter.in === "path"))
    address = address.replace(`{${name}}`, schema.enum[0]);
  const url = new URL(address.slice(1), base);
  const content = body?.content["application/json"];
  const text = content && element("textarea", { "aria-label": `Body of ${method} ${path}`, spellcheck: "false" });
  if (text) text.value = JSON.stringify(content.example ?? {}, null, 2);
  const reply = element("pre", { "aria-live": "polite", hidden: "", tabindex: "0" });
  const button = element("button", { type: "button" }, "Send");
  button.addEventListener("click", async () => {
    const request = text ? { method, body: text.value, headers: { "Content-Type": "application/json" } } : { method };
    button.disabled = true;
    try {
      const response = await fetch(url, request);
      let told = await response.text();
      if (response.headers.get("Content-Type") === "application/json") told = JSON.stringify(JSON.parse(told), null, 2);
      reply.textContent = `${response.status} ${response.statusText}\n${told}`;
      reply.classList.toggle("wrong", !response.ok);
    } catch (error) {
      reply.textContent = `The service did not answer: ${error.message}`;
      reply.classList.add("wrong");
    }
    reply.hidden = false;
    button.disabled = false;
  });
  return [...(text ? [element("h4", {}, "Body"), text] : []), element("p", {}, button), reply];
}

function operation(path, method, told) {
  const parameters = told.parameters ?? [];
  const rows = parameters.map(({ name, in: place, schema, description = "" }) => [name, place, typeOf(schema), description]);
  const media = Object.entries(told.requestBody?.content ?? {}).map(([kind, { schema = {} }]) => [kind, typeOf(schema)]);
  const replies = Object.entries(told.responses).map(([status, { description, content = {} }]) => [
    status,
    description,
    Object.entries(content).flatMap(([kind, { schema = {} }], at) => [at ? "; " : "", `${kind}: `, ...typeOf(schema)]),
  ]);
  const title = `${method.toUpperCase()} ${path}`;
  return element(
    "section",
    { id: told.operationId.replace(" ", "") },
    element("h3", {}, title),
    element("p", {}, `${told.summary}. ${told.description ?? ""}`),
    ...(rows.length ? [element("h4", {}, "Parameters"), table(["name", "in", "type", "meaning"], rows)] : []),
    ...(media.length ? [element("h4", {}, "Content types"), table(["type", "content"], media)] : []),
    ...form(method.toUpperCase(), path, parameters, told.requestBody),
    element("h4", {}, "Replies"),
    table(["status", "meaning", "content"], replies),
  );
}

function show(document_) {
  document.getElementById("version").textContent = document_.info.version;
  document.getElementById("description").textContent = document_.info.description;
  const contents = document.getElementById("contents");
  const sections = new Map(document_.tags.map(({ name }) => [name, element("section", {}, element("h2", {}, name))]));
  for (const [path, operations] of Object.entries(document_.paths))
    for (const [method, told] of Object.entries(operations)) {
      const made = operation(path, method, told);
      sections.get(told.tags[0]).append(made);
      contents.append(element("li", {}, element("a", { href: `#${made.id}` }, `${method.toUpperCase()} ${path}`)));
    }
  const schemas = element("section", {}, element("h2", {}, "Schemas"));
  for (const [name, schema] of Object.entries(document_.components.schemas))
    schemas.append(
      element("section", { id: `schema-${name}` }, element("h3", {}, name), element("p", {}, schema.description ?? ""), fields(schema)),
    );
  const routes = document.getElementById("routes");
  routes.replaceChildren(...sections.values(), schemas);
  routes.removeAttribute("aria-busy");
}

fetch(new URL("openapi.json", base))
  .then((response) => {
    if (!response.ok) throw new Error(`status ${response.status}`);
    return response.json();
  })
  .then(show)
  .catch((error) => {
    document.getElementById("routes").replaceChildren(
      element("p", { class: "wrong", role: "alert" }, `openapi.json cannot be read: ${error.message}.`),
    );
  });
