/* Colours for code and shapes for mathematics, fetched only when a text has some. */
(() => {
  "use strict";
  const waiting = new Map();

  /* Run a script of this site once, whoever asks how often. */
  function scriptLoad(url) {
    if (!waiting.has(url)) {
      waiting.set(
        url,
        new Promise((resolve, reject) => {
          const script = document.createElement("script");
          script.src = url;
          script.addEventListener("load", resolve);
          script.addEventListener("error", () => {
            waiting.delete(url);
            script.remove();
            reject(new Error(url));
          });
          document.head.append(script);
        }),
      );
    }
    return waiting.get(url);
  }

  /* Several, each after the one before. */
  const inOrder = (urls) => urls.reduce((before, url) => before.then(() => scriptLoad(url)), Promise.resolve());

  async function codeColour(blocks, url) {
    await scriptLoad(url);
    for (const block of blocks) {
      const language = block.className.match(/language-(\S+)/)?.[1]?.toLowerCase();
      if (block.dataset.coloured || !window.hljs.getLanguage(language)) continue;
      block.dataset.coloured = "yes";
      // Of this library's own making: spans with classes, around text that it escapes.
      block.innerHTML = window.hljs.highlight(block.textContent, { language, ignoreIllegals: true }).value;
    }
  }

  const DELIMITERS = /^(\$\$|\\\[|\\\(|\$)([\s\S]*?)(\$\$|\\\]|\\\)|\$)$/;

  async function mathShape(places, url) {
    await scriptLoad(url);
    for (const place of places) {
      const [, opener, tex] = place.textContent.match(DELIMITERS) ?? [];
      if (place.dataset.shaped || tex === undefined) continue;
      place.dataset.shaped = "yes";
      const options = { displayMode: opener === "$$" || opener === "\\[", output: "mathml", throwOnError: false, trust: false, strict: "ignore", maxExpand: 200, maxSize: 12 };
      let html;
      try {
        html = window.katex.renderToString(tex, options);
      } catch {
        continue; // what cannot be read as mathematics stays as it was written
      }
      // MathML alone, whose looks are the browser's: the few style attributes are refused anyway.
      place.title = tex.trim();
      place.innerHTML = html.replace(/ style="[^"]*"/g, "");
    }
  }

  /* Typeset what lies under `root`. Failing to fetch a library leaves the text as it was written. */
  async function typeset(root, libraries) {
    const code = [...root.querySelectorAll("pre code[class^='language-']:not([data-coloured])")];
    const math = [...root.querySelectorAll(".math:not([data-shaped])")];
    await Promise.allSettled([
      code.length && codeColour(code, libraries.highlight),
      math.length && mathShape(math, libraries.katex),
    ]);
  }

  window.rondo = { ...window.rondo, inOrder, typeset };
})();
