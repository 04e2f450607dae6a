/** The code that repeats the last request: curl, Python with and without the client, JavaScript. */
import { html, useState } from "./vendor.js";
import { BASE, readKey } from "./api.js";

/** @typedef {import("./api.js").Sent} Sent */

const ADDRESS = BASE.href.replace(/\/$/, "");

/** JSON in which lists of numbers stand on one line. @param {unknown} value */
export function formatJson(value) {
  const text = JSON.stringify(value, null, 2);
  return text.replace(/\[\s+(-?[\d.e+-]+,?\s*)+\]/gi, (list) => list.replace(/\s+/g, " ").replace("[ ", "[").replace(" ]", "]"));
}

/** @param {unknown} value @returns {string} the value as Python writes it */
function python(value) {
  if (value === null || value === undefined) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (typeof value === "object") return `{${Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${python(each)}`).join(", ")}}`;
  return JSON.stringify(value);
}

/** @param {string} text in single quotes of the shell */
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** @param {Sent} sent @param {boolean} keyed */
function curl(sent, keyed) {
  const lines = [`curl -s${sent.stream ? "N" : ""} ${quoted(ADDRESS + sent.path)}`];
  if (keyed) lines.push(`-H "Authorization: Bearer $EKIBEN_KEY"`);
  if (sent.json !== undefined) lines.push("-H 'Content-Type: application/json'", `-d ${quoted(formatJson(sent.json))}`);
  if (sent.file) lines.push(`-H 'Content-Type: ${sent.file.type}'`, `--data-binary @${quoted(sent.file.name)}`);
  return lines.join(" \\\n  ");
}

/** @param {Record<string, unknown>} fields */
const keywords = (fields) => Object.entries(fields).map(([name, value]) => `, ${name}=${python(value)}`).join("");

/** The call of ekiben.client, or null for a route that it does not have. @param {Sent} sent */
function clientCall(sent) {
  const [path, query] = sent.path.split("?");
  if (sent.method === "GET") {
    if (path === "/models") return "answer = client.models()";
    const name = /^\/models\/([^/]+)$/.exec(path)?.[1];
    return name ? `answer = client.model(${python(decodeURIComponent(name))})` : null;
  }
  const { model, ...fields } = /** @type {any} */ (sent.json ?? Object.fromEntries(new URLSearchParams(query)));
  const method = path.slice(1).replace("-", "_");
  if (sent.file) {
    const options = Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, Number(value)]));
    return `answer = client.${method}(${python(model)}, images=[Path(${python(sent.file.name)})]${keywords(options)})`;
  }
  if (["predict", "classify", "sequence_predict"].includes(method)) return `answer = client.${method}(${python(model)}${keywords(fields)})`;
  if (method === "generate") return `answer = client.generate_images(${python(model)}${keywords(fields)})`;
  if (path !== "/v1/completions") return null;
  const { prompt, stream, logprobs, ...rest } = fields;
  return `for event in client.stream(${python(model)}, ${python(prompt)}${keywords(rest)}):\n        print(getattr(event, "text", ""), end="", flush=True)`;
}

/** @param {Sent} sent @param {boolean} keyed */
function withClient(sent, keyed) {
  const call = clientCall(sent);
  if (!call) return "# ekiben.client has no method for this route: the standard library does it.\n" + withLibrary(sent, keyed);
  const imports = [keyed && "import os", sent.file && "from pathlib import Path"].filter(Boolean);
  return [
    ...imports,
    ...(imports.length ? [""] : []),
    "from ekiben.client import Client",
    "",
    `with Client(${python(ADDRESS)}${keyed ? ', api_key=os.environ["EKIBEN_KEY"]' : ""}) as client:`,
    `    ${call}`,
    ...(call.startsWith("answer") ? ["print(answer)"] : []),
  ].join("\n");
}

/** @param {Sent} sent @param {boolean} keyed */
function withLibrary(sent, keyed) {
  const headers = [
    sent.json !== undefined && '"Content-Type": "application/json"',
    sent.file && `"Content-Type": ${python(sent.file.type)}`,
    keyed && '"Authorization": f"Bearer {os.environ[\'EKIBEN_KEY\']}"',
  ].filter(Boolean);
  const data = sent.file ? `open(${python(sent.file.name)}, "rb").read()` : "json.dumps(body).encode()";
  const hasBody = sent.file || sent.json !== undefined;
  return [
    `import ${["json", keyed && "os"].filter(Boolean).join(", ")}`,
    "from urllib.request import Request, urlopen",
    "",
    ...(sent.json === undefined ? [] : [`body = ${python(sent.json)}`]),
    `request = Request(${python(ADDRESS + sent.path)}, headers={${headers.join(", ")}}${hasBody ? `, data=${data}` : ""})`,
    "with urlopen(request) as response:",
    sent.stream ? "    for line in response:\n        print(line.decode(), end=\"\")" : "    print(json.load(response))",
  ].join("\n");
}

/** @param {Sent} sent @param {boolean} keyed */
function javascript(sent, keyed) {
  const headers = [
    sent.json !== undefined && '"Content-Type": "application/json"',
    sent.file && `"Content-Type": ${JSON.stringify(sent.file.type)}`,
    keyed && "Authorization: `Bearer ${process.env.EKIBEN_KEY}`",
  ].filter(Boolean);
  const body = sent.file ? `await readFile(${JSON.stringify(sent.file.name)})` : `JSON.stringify(${formatJson(sent.json)})`;
  const hasBody = sent.file || sent.json !== undefined;
  return [
    ...(sent.file ? ['import { readFile } from "node:fs/promises";', ""] : []),
    `const response = await fetch(${JSON.stringify(ADDRESS + sent.path)}, {`,
    `  method: ${JSON.stringify(sent.method)},`,
    ...(headers.length ? [`  headers: { ${headers.join(", ")} },`] : []),
    ...(hasBody ? [`  body: ${body},`] : []),
    "});",
    ...(sent.stream
      ? ["const decoder = new TextDecoder();", "for await (const chunk of response.body) console.log(decoder.decode(chunk, { stream: true }));"]
      : ["console.log(await response.json());"]),
  ].join("\n");
}

/** @type {Record<string, (sent: Sent, keyed: boolean) => string>} */
export const LANGUAGES = { curl, "Python": withClient, "Python, no packages": withLibrary, JavaScript: javascript };

/** @param {{sent: Sent | null}} props */
export function Code({ sent }) {
  const [language, setLanguage] = useState("curl");
  const [copied, setCopied] = useState(false);
  const text = sent ? LANGUAGES[language](sent, readKey() !== "") : "";
  async function copy() {
    await navigator.clipboard.writeText(text);
    setCopied(true);
    setTimeout(() => setCopied(false), 1500);
  }
  return html`<section class="panel code" aria-labelledby="code-title">
    <div class="code-head">
      <h2 id="code-title">The same in code</h2>
      <div class="segments" role="group" aria-label="Language">
        ${Object.keys(LANGUAGES).map(
          (name) => html`<button key=${name} type="button" aria-pressed=${name === language} onClick=${() => setLanguage(name)}>${name}</button>`,
        )}
      </div>
      <button type="button" class="small" disabled=${!sent} onClick=${copy}>${copied ? "Copied" : "Copy"}</button>
    </div>
    ${sent
      ? html`<pre tabindex="0" role="region" aria-label=${`The last request in ${language}`}><code>${text}</code></pre>`
      : html`<p class="muted">The request appears here once you have made one.</p>`}
    <p class="visually-hidden" role="status">${copied ? "Copied to the clipboard" : ""}</p>
  </section>`;
}
