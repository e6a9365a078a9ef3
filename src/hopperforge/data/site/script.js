
"use strict";
// Picks among what is on the page and shows it: which package has which answers, and every line to copy, is written there.
(() => {
  const byId = (id) => document.getElementById(id);
  const say = (text) => { byId("said").textContent = text; };
  const element = (name, className, ...content) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    made.append(...content);
    return made;
  };

  // The address of this index takes the place of the placeholder; what a shell might read as its own is encoded.
  const base = new URL(".", location.href).href.replace(/\/$/, "")
    .replace(/[^\w.~:\/%@\[\]-]/g, (found) => "%" + found.charCodeAt(0).toString(16).toUpperCase());
  for (const code of document.querySelectorAll(".line code")) {
    code.textContent = code.textContent.replaceAll(document.body.dataset.placeholder, base);
  }
  document.documentElement.classList.add("js");

  // Copying. The clipboard is there for secure pages alone, and an index in a laboratory is often none.
  const copyText = async (text) => {
    if (navigator.clipboard && window.isSecureContext) {
      try {
        await navigator.clipboard.writeText(text);
        return true;
      } catch { /* not allowed: the old way may be */ }
    }
    const area = element("textarea", "hidden");
    area.value = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  };
  const copyLine = async (button) => {
    const line = button.closest(".line");
    const tool = line.querySelector(".tool").textContent;
    const code = line.querySelector("code");
    const copied = await copyText(code.textContent);
    button.focus();
    if (!copied) {
      getSelection().selectAllChildren(code);
      say(`The ${tool} line could not be copied; it is selected.`);
      return;
    }
    button.firstChild.data = "Copied";
    button.classList.add("done");
    say(`The ${tool} line is copied.`);
    setTimeout(() => { button.firstChild.data = "Copy"; button.classList.remove("done"); }, 2000);
  };
  const addButtons = (place) => {
    for (const line of place.querySelectorAll(".line:not(:has(button))")) {
      const tool = line.querySelector(".tool").textContent;
      const button = element("button", "copy", "Copy", element("span", "hidden", ` the ${tool} line`));
      button.type = "button";
      line.querySelector(".tool").after(button);
    }
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.copy");
    if (button) copyLine(button);
  });
  document.addEventListener("toggle", (event) => { if (event.target.open) addButtons(event.target); }, true);

  const showTarget = () => {
    const target = byId(decodeURIComponent(location.hash.slice(1)));
    if (target && target.matches(".package")) {
      target.hidden = false;
      target.querySelector("details").open = true;
    }
  };

  const form = byId("chooser");
  if (!form) return;

  // The chooser.
  const packages = JSON.parse(byId("data").textContent);
  const fieldsets = [...form.querySelectorAll("fieldset")];
  const chosen = () => Object.fromEntries(new FormData(form));
  const fits = (found, answers) => Object.entries(answers).every(([key, value]) => found.answers[key].includes(value));
  const serves = (answers) => packages.some((found) => fits(found, answers));

  const markOptions = (answers) => {
    for (const fieldset of fieldsets) {
      for (const input of fieldset.querySelectorAll("input")) {
        const none = !serves({ ...answers, [fieldset.dataset.key]: input.value });
        input.parentElement.classList.toggle("none", none);
        if (none) input.setAttribute("aria-describedby", "none-fits");
        else input.removeAttribute("aria-describedby");
      }
    }
  };
  const linkTo = (found) => {
    const link = element("a", "", found.version + (found.unproven ? " (unproven)" : ""));
    link.href = "#" + encodeURIComponent(found.row);
    return link;
  };
  const factOf = (cell) => {
    const text = element("dd", "", ...cell.cloneNode(true).childNodes);
    return element("div", "", element("dt", "", cell.dataset.label), text);
  };
  const showPackage = (fitting) => {
    const [first, ...others] = fitting;
    const row = byId(first.row);
    const title = `${first.answers.project[0]} ${first.version}`;
    const facts = element("dl", "facts", ...[...row.rows[0].cells].slice(2, 6).map(factOf));
    const copies = [".marks", ".install"].map((part) => row.querySelector(part)?.cloneNode(true) ?? "");
    const shown = [element("h3", "", title), copies[0], facts, copies[1]];
    const evidence = linkTo(first);
    evidence.textContent = "Its gates, speeds and record";
    const more = element("p", "also", evidence, ".");
    if (others.length) more.append(" Also fits: ");
    others.slice(0, 3).forEach((found, place) => more.append(place ? ", " : "", linkTo(found)));
    byId("answer").replaceChildren(...shown, more);
    addButtons(byId("choose"));
    return `${title} serves these.`;
  };
  const showNothing = (answers) => {
    const list = element("ul", "");
    for (const fieldset of fieldsets) {
      const key = fieldset.dataset.key;
      const others = [...fieldset.querySelectorAll("input")].filter((one) => serves({ ...answers, [key]: one.value }));
      if (!others.length) continue;
      const item = element("li", "", `With another ${fieldset.dataset.label}:`);
      for (const other of others) {
        const button = element("button", "", other.value);
        button.type = "button";
        button.addEventListener("click", () => { other.checked = true; other.focus(); update(); });
        item.append(button);
      }
      list.append(item);
    }
    const advice = list.children.length ? "Change one of them:" : "Change more than one of them.";
    byId("answer").replaceChildren(element("h3", "", "Nothing here serves these together"), element("p", "facts", advice), list);
    return `Nothing here serves these together. ${advice}`;
  };
  const show = () => {
    const answers = chosen();
    markOptions(answers);
    const fitting = packages.filter((found) => fits(found, answers));
    return fitting.length ? showPackage(fitting) : showNothing(answers);
  };
  const update = () => {
    say(show());
    history.replaceState(null, "", "#" + new URLSearchParams(new FormData(form)));
  };
  const readAddress = () => {
    const asked = new URLSearchParams(location.hash.slice(1));
    for (const input of form.querySelectorAll("input")) {
      if (asked.get(input.name) === input.value) input.checked = true;
    }
  };
  form.addEventListener("change", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.closest("[hidden]").hidden = false;
  addButtons(byId("choose"));

  // The filter.
  const bodies = [...document.querySelectorAll("tbody.package")];
  const texts = new Map();
  const text = (body) => {
    if (!texts.has(body)) texts.set(body, `${body.rows[0].textContent} ${body.dataset.find}`.toLowerCase());
    return texts.get(body);
  };
  // A number is looked for from its beginning, so that "2.6" does not find "12.6".
  const pattern = (word) => new RegExp((/^\d/.test(word) ? "(?<![\\d.])" : "") + word.replace(/[^\w\s]/g, "\\$&"));
  const filter = byId("filter");
  const total = byId("count").textContent;
  const applyFilter = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean).map(pattern);
    let count = 0;
    for (const body of bodies) {
      const found = words.every((word) => word.test(text(body)));
      if (body.hidden === found) body.hidden = !found;
      count += found;
    }
    byId("count").textContent = words.length ? `${count} of ${total}` : total;
    byId("no-match").hidden = count > 0;
  };
  filter.addEventListener("input", applyFilter);
  filter.closest("[hidden]").hidden = false;
  if (filter.value) applyFilter(); // a page that is reloaded keeps what was typed

  addEventListener("hashchange", () => { readAddress(); show(); showTarget(); });
  readAddress();
  show();
  showTarget();
})();
