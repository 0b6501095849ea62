"use strict";
(function () {
  // The parts become tabs. Without this script they follow one another, and the links lead to them.
  const list = document.querySelector(".tabs");
  const tabs = Array.from(list.querySelectorAll("a"));
  const partOf = (tab) => document.getElementById(tab.hash.slice(1));

  function select(chosen) {
    for (const tab of tabs) {
      const on = tab === chosen;
      tab.setAttribute("aria-selected", on);
      tab.tabIndex = on ? 0 : -1;
      partOf(tab).hidden = !on;
    }
  }

  function follow() {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const tab = target && tabs.find((one) => partOf(one).contains(target));
    if (tab) {
      select(tab);
      target.scrollIntoView();
    }
  }

  list.setAttribute("role", "tablist");
  for (const tab of tabs) {
    tab.setAttribute("role", "tab");
    tab.setAttribute("aria-controls", partOf(tab).id);
    partOf(tab).setAttribute("role", "tabpanel");
    partOf(tab).setAttribute("aria-labelledby", tab.id);
    tab.addEventListener("click", (event) => {
      event.preventDefault();
      select(tab);
      history.replaceState(null, "", tab.hash);
    });
    tab.addEventListener("keydown", (event) => {
      const at = tabs.indexOf(tab);
      const last = tabs.length - 1;
      const next = { ArrowRight: at === last ? 0 : at + 1, ArrowLeft: at ? at - 1 : last, Home: 0, End: last }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      select(tabs[next]);
      tabs[next].focus();
    });
  }
  select(tabs[0]);
  follow();
  addEventListener("hashchange", follow);

  // The slider shows what alarms at its threshold catch and cost, among 100 patients.
  function people(counts) {
    const shares = ["true", "false", "missed"].map((name) => counts[name]);
    const whole = shares.map(Math.floor);
    const order = shares.map((value, i) => [value - whole[i], i]).sort((a, b) => b[0] - a[0]);
    const wanted = Math.round(shares.reduce((sum, value) => sum + value, 0));
    for (const [, i] of order) if (whole.reduce((sum, n) => sum + n, 0) < wanted) whole[i] += 1;
    return ["true", "false", "missed"].flatMap((name, i) => Array(whole[i]).fill(name));
  }

  for (const box of document.querySelectorAll(".slider")) {
    const positions = JSON.parse(box.querySelector("script").textContent);
    const input = box.querySelector("input");
    const dots = Array.from(box.querySelectorAll(".people rect"));
    const show = () => {
      const now = positions[input.value];
      const risk = (100 * now.threshold).toFixed(1) + " %";
      input.setAttribute("aria-valuetext", "alarm at a risk of " + risk + " or more");
      box.querySelector("[data-of=threshold]").textContent = risk;
      for (const name of ["true", "false", "missed"]) {
        box.querySelector("[data-of=" + name + "]").textContent = now[name].toFixed(1);
      }
      box.querySelector("[data-of=alarms]").textContent = (now.true + now.false).toFixed(1);
      const classes = people(now);
      dots.forEach((dot, i) => dot.setAttribute("class", classes[i] || "quiet"));
    };
    input.addEventListener("input", show);
    show();
  }

  // Light and dark follow the reader's system until the button is pressed.
  const button = document.querySelector("button.scheme");
  button.hidden = false;
  button.addEventListener("click", () => {
    const root = document.documentElement;
    const isDark = getComputedStyle(root).colorScheme === "dark";
    root.dataset.scheme = isDark ? "light" : "dark";
  });

  // Print everything, folded parts too.
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => (one.open = true)));
})();
