/** The page: its tabs, the key of this browser tab, the colour scheme, and the models that all views share. */
import { html, render, useCallback, useEffect, useState } from "./vendor.js";
import { getJson, readKey, storeKey } from "./api.js";
import { Draw } from "./draw.js";
import { Form } from "./form.js";
import { Images } from "./images.js";
import { Live } from "./live.js";
import { Models } from "./models.js";
import { Picture } from "./picture.js";
import { Series } from "./series.js";
import { Text } from "./text.js";
import { ErrorBox, Field } from "./ui.js";
import { Write } from "./write.js";

const SOON_MS = 2000; // while models are loading
const LATER_MS = 10_000;

/** @type {[string, string, any, string][]} address, name, view, whether it tries or looks */
const VIEWS = [
  ["draw", "Draw", Draw, "try"],
  ["picture", "Picture", Picture, "try"],
  ["text", "Text", Text, "try"],
  ["series", "Series", Series, "try"],
  ["write", "Generate text", Write, "try"],
  ["images", "Generate pictures", Images, "try"],
  ["form", "Any model", Form, "try"],
  ["models", "Models", Models, "look"],
  ["live", "Live", Live, "look"],
];

function App() {
  const [view, setView] = useState(location.hash.slice(1));
  const [models, setModels] = useState(/** @type {import("./ui.js").Model[]} */ ([]));
  const [loaded, setLoaded] = useState(false);
  const [error, setError] = useState(/** @type {unknown} */ (null));
  const [key, setKey] = useState(readKey());
  const [scheme, setScheme] = useState(document.documentElement.dataset.scheme ?? "");
  const [id, name, View] = VIEWS.find(([each]) => each === view) ?? VIEWS[0];

  useEffect(() => {
    const follow = () => setView(location.hash.slice(1));
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  useEffect(() => {
    document.title = `${name} · Ekiben`;
    document.querySelector(".tabs [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
  }, [id]);

  const refresh = useCallback(async () => {
    try {
      const { models: found } = await getJson("/models");
      setModels((/** @type {any[]} */ known) => (JSON.stringify(known) === JSON.stringify(found) ? known : found));
      setError(null);
      return found.every((/** @type {any} */ model) => ["READY", "FAILED"].includes(model.state));
    } catch (problem) {
      setModels([]);
      setError(problem);
      return false;
    } finally {
      setLoaded(true);
    }
  }, []);
  useEffect(() => {
    let timer = 0;
    let current = true;
    async function follow() {
      const settled = document.hidden || (await refresh());
      if (current) timer = setTimeout(follow, settled ? LATER_MS : SOON_MS);
    }
    follow();
    return () => {
      current = false;
      clearTimeout(timer);
    };
  }, [key]);

  const ready = models.filter((model) => model.state === "READY").length;
  return html`<a class="skip" href="#main" onClick=${skip}>Skip to the view</a>
    <header class="top">
      <a class="brand" href="#draw"><img src="playground/icon.svg" alt="" width="32" height="32" /><span><b>Ekiben</b><small>models, with proof</small></span></a>
      <p class="status" role="status">${!loaded ? "…" : error ? html`<span class="state bad">no answer</span>` : html`<span class=${`state ${ready === models.length ? "good" : "wait"}`}>${ready} of ${models.length} ready</span>`}</p>
      <${Key} value=${key} onChange=${(/** @type {string} */ value) => (storeKey(value), setKey(value))} />
      <button type="button" class="icon" onClick=${() => setScheme(toggleScheme())} aria-label="Switch between light and dark"><span aria-hidden="true">◐</span></button>
    </header>
    <nav class="tabs" aria-label="Views">
      ${["try", "look"].map((group) => html`<ul key=${group}>${VIEWS.filter((each) => each[3] === group).map(
        ([each, label]) => html`<li key=${each}><a href=${`#${each}`} aria-current=${each === id ? "page" : undefined}>${label}</a></li>`,
      )}</ul>`)}
    </nav>
    <main id="main" tabindex="-1">
      <h1 class="visually-hidden">${name}</h1>
      <${ErrorBox} error=${error} />
      <${View} key=${id} models=${models} loaded=${loaded} scheme=${scheme} />
    </main>
    <footer><p>Everything on this page goes through the service's ordinary routes: <a href="openapi.json">OpenAPI</a> · <a href="models">models</a> · <a href="metrics">metrics</a> · <a href="readyz">readiness</a></p></footer>`;
}

/** Hashes name views, so the link moves the focus itself. @param {Event} event */
function skip(event) {
  event.preventDefault();
  document.getElementById("main")?.focus();
}

/** @param {{value: string, onChange: (value: string) => void}} props */
function Key({ value, onChange }) {
  const [typed, setTyped] = useState(value);
  return html`<details class="key"><summary>${value ? "Key ✓" : "Key"}</summary>
    <form onSubmit=${(/** @type {Event} */ event) => (event.preventDefault(), onChange(typed.trim()))}>
      <${Field} label="Key of this service" hint="Kept in this browser tab until it is closed; sent to this service alone.">${(/** @type {any} */ attributes) => html`<input ...${attributes} type="password"
        autocomplete="off" spellcheck="false" value=${typed} onInput=${(/** @type {any} */ event) => setTyped(event.target.value)} />`}<//>
      <div class="row"><button type="submit" class="primary">Use it</button>
        <button type="button" class="quiet" onClick=${() => (setTyped(""), onChange(""))}>Forget it</button></div>
    </form></details>`;
}

/** @returns {string} the new scheme */
function toggleScheme() {
  const root = document.documentElement;
  const isDark = root.dataset.scheme ? root.dataset.scheme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const scheme = isDark ? "light" : "dark";
  root.dataset.scheme = scheme;
  try {
    localStorage.setItem("ekiben-scheme", scheme);
  } catch {
    // Storage is turned off: the choice holds until the page is left.
  }
  return scheme;
}

render(html`<${App} />`, /** @type {HTMLElement} */ (document.getElementById("app")));
