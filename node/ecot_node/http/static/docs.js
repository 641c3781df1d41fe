// SPDX-License-Identifier: AGPL-3.0-or-later
// Shows /v1/openapi.json. Everything is put in as text, never as markup; nothing comes from another host.
"use strict";

const TEXTS = {
  en: {
    skip: "Skip to the operations", intro: "The HTTP interface of this node.", filter: "Filter", language: "Language",
    source: "The description as OpenAPI 3.1", groups: "Groups", operations: "Operations", problems: "Problems",
    schemas: "Types", parameters: "Parameters", body: "Body", answers: "Answers", name: "Name", place: "Place",
    type: "Type", status: "Status", meaning: "Meaning", required: "required", session: "Needs a session.",
    loading: "Loading…", failed: "The description could not be read.", fields: "Fields",
    shown: (count) => `${count} operations`,
  },
  fr: {
    skip: "Aller aux opérations", intro: "L’interface HTTP de ce nœud.", filter: "Filtrer", language: "Langue",
    source: "La description au format OpenAPI 3.1", groups: "Groupes", operations: "Opérations",
    problems: "Problèmes", schemas: "Types", parameters: "Paramètres", body: "Corps", answers: "Réponses",
    name: "Nom", place: "Place", type: "Type", status: "Statut", meaning: "Sens", required: "obligatoire",
    session: "Demande une session.", loading: "Chargement…", failed: "La description n’a pas pu être lue.",
    fields: "Champs", shown: (count) => `${count} opérations`,
  },
};

let language = navigator.language.toLowerCase().startsWith("fr") ? "fr" : "en";
let description = null;

const find = (id) => document.getElementById(id);

function make(tag, text = "", attributes = {}) {
  const element = document.createElement(tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function typeOf(schema) {
  if (schema === undefined) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" | ");
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" | ");
  if (schema.type === "array") return `[${typeOf(schema.items) || (schema.prefixItems || []).map(typeOf).join(", ")}]`;
  const limits = ["pattern", "minimum", "maximum", "minLength", "maxLength", "format"]
    .filter((key) => schema[key] !== undefined).map((key) => `${key}: ${schema[key]}`).join(", ");
  return limits ? `${schema.type} (${limits})` : String(schema.type ?? "");
}

function table(headings, rows) {
  const box = make("div", "", { class: "scroll", tabindex: "0", role: "region", "aria-label": headings[0] });
  const whole = make("table");
  const head = whole.createTHead().insertRow();
  headings.forEach((text) => head.append(make("th", text, { scope: "col" })));
  const body = whole.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    row.forEach((text) => line.append(make("td", text, { class: "prose" })));
  }
  box.append(whole);
  return box;
}

function contentText(content) {
  return Object.entries(content ?? {}).map(([type, one]) => `${type}: ${typeOf(one.schema)}`).join("\n");
}

function showOperation(path, method, operation) {
  const texts = TEXTS[language];
  const details = make("details", "", { id: operation.operationId });
  const summary = make("summary");
  summary.append(make("code", method.toUpperCase(), { class: "method" }), make("code", path), ` — ${operation.summary}`);
  const box = make("div");
  if (operation.description) box.append(make("p", operation.description, { class: "prose" }));
  if (!operation.security.some((one) => Object.keys(one).length === 0)) box.append(make("p", texts.session));
  if (operation.parameters) {
    const rows = operation.parameters.map((one) =>
      [one.name, one.in + (one.required ? `, ${texts.required}` : ""), typeOf(one.schema)]);
    box.append(make("h4", texts.parameters), table([texts.name, texts.place, texts.type], rows));
  }
  if (operation.requestBody) box.append(make("h4", texts.body), make("pre", contentText(operation.requestBody.content)));
  const answers = Object.entries(operation.responses).map(([status, one]) =>
    [status, one.description, contentText(one.content)]);
  box.append(make("h4", texts.answers), table([texts.status, texts.meaning, texts.type], answers));
  details.append(summary, box);
  return details;
}

function operationsOf() {
  return Object.entries(description.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method, operation })));
}

function showProblems(operations) {
  const found = new Map();
  for (const { operation } of operations) {
    for (const [status, answer] of Object.entries(operation.responses)) {
      for (const [, code, text] of answer.description.matchAll(/^- `([a-z_]+)`: (.*)$/gm)) found.set(code, `${status} · ${text}`);
    }
  }
  const list = find("problem-list");
  list.replaceChildren();
  for (const [code, text] of [...found].sort()) {
    list.append(make("dt", code, { id: `problem-${code}` }), make("dd", text));
  }
}

function showSchemas() {
  const section = find("schemas");
  section.querySelectorAll("details").forEach((one) => one.remove());
  for (const [name, schema] of Object.entries(description.components.schemas)) {
    const details = make("details", "", { id: `type-${name}` });
    const box = make("div");
    if (schema.description) box.append(make("p", schema.description, { class: "prose" }));
    const rows = Object.entries(schema.properties ?? {}).map(([field, one]) => [field, typeOf(one)]);
    box.append(table([TEXTS[language].fields, TEXTS[language].type], rows));
    details.append(make("summary", name), box);
    section.append(details);
  }
}

function show() {
  const texts = TEXTS[language];
  document.documentElement.lang = language;
  document.querySelectorAll("[data-text]").forEach((one) => { one.textContent = texts[one.dataset.text]; });
  document.querySelectorAll("[data-language]").forEach((one) =>
    one.setAttribute("aria-pressed", String(one.dataset.language === language)));
  if (description === null) return;
  const wanted = find("filter").value.trim().toLowerCase();
  const every = operationsOf();
  const operations = every.filter(({ path, method, operation }) =>
    `${method} ${path} ${operation.summary}`.toLowerCase().includes(wanted));
  const section = find("operations");
  section.querySelectorAll("details, h3").forEach((one) => one.remove());
  find("groups").replaceChildren();
  for (const { name } of description.tags) {
    const own = operations.filter(({ operation }) => operation.tags.includes(name));
    if (own.length === 0) continue;
    const item = make("li");
    item.append(make("a", name, { href: `#group-${name}` }));
    find("groups").append(item);
    section.append(make("h3", name, { id: `group-${name}` }));
    own.forEach(({ path, method, operation }) => section.append(showOperation(path, method, operation)));
  }
  showProblems(every);
  showSchemas();
  find("status").textContent = texts.shown(operations.length);
}

function goToFragment() {
  const target = location.hash.length > 1 ? find(decodeURIComponent(location.hash.slice(1))) : null;
  if (target === null) return;
  if (target.tagName === "DETAILS") target.open = true;
  target.scrollIntoView();
}

async function load() {
  find("status").textContent = TEXTS[language].loading;
  try {
    const answer = await fetch("/v1/openapi.json", { headers: { "Accept-Language": language } });
    if (!answer.ok) throw new Error(String(answer.status));
    description = await answer.json();
    show();
    goToFragment();
  } catch {
    find("status").textContent = TEXTS[language].failed;
  }
}

find("filter").addEventListener("input", show);
find("controls").addEventListener("submit", (event) => event.preventDefault());
window.addEventListener("hashchange", goToFragment);
document.querySelectorAll("[data-language]").forEach((one) => one.addEventListener("click", () => {
  language = one.dataset.language;
  show();
  load();
}));
show();
load();
