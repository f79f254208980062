/* What differs between two texts, word by word. Plain data: nothing here touches the page, but the
   last two functions, which mark words in it. */
(() => {
  "use strict";

  /* Words and what stands between them, so that joining gives the text back. Scripts that put no
     space between words (Chinese, Japanese, Thai) are cut by the browser's own dictionary. */
  const cutter = typeof Intl.Segmenter === "function" ? new Intl.Segmenter(undefined, { granularity: "word" }) : null;
  const unspaced = /[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]/;
  function wordsCut(text) {
    const parts = text.match(/\s+|[^\s]+/g) ?? [];
    if (!cutter || !unspaced.test(text)) return parts;
    return parts.flatMap((part) => (unspaced.test(part) ? [...cutter.segment(part)].map((one) => one.segment) : part));
  }

  const MOST_EDITS = 1500;

  /* The shortest edit between two lists, by Myers's greedy walk (1986), as runs [mark, items] with
     "=" kept, "-" only in the first, "+" only in the second. Texts that have next to nothing in common are one "-" and
     one "+": past MOST_EDITS steps the exact answer would help nobody. */
  function difference(before, after) {
    let head = 0;
    while (head < before.length && head < after.length && before[head] === after[head]) head += 1;
    let tail = 0;
    while (
      tail < before.length - head &&
      tail < after.length - head &&
      before[before.length - 1 - tail] === after[after.length - 1 - tail]
    )
      tail += 1;
    const a = before.slice(head, before.length - tail);
    const b = after.slice(head, after.length - tail);
    const middle = walk(a, b) ?? [...a.map((one) => ["-", one]), ...b.map((one) => ["+", one])];
    const steps = [
      ...before.slice(0, head).map((one) => ["=", one]),
      ...middle,
      ...before.slice(before.length - tail).map((one) => ["=", one]),
    ];
    const runs = [];
    for (const [mark, item] of steps) {
      if (runs.at(-1)?.[0] === mark) runs.at(-1)[1].push(item);
      else runs.push([mark, [item]]);
    }
    return runs;
  }

  function walk(a, b) {
    const most = Math.min(a.length + b.length, MOST_EDITS);
    const reach = new Map([[1, 0]]);
    const trail = [];
    for (let edits = 0; edits <= most; edits += 1) {
      trail.push(new Map(reach));
      for (let line = -edits; line <= edits; line += 2) {
        const down = line === -edits || (line !== edits && reach.get(line - 1) < reach.get(line + 1));
        let x = down ? reach.get(line + 1) : reach.get(line - 1) + 1;
        let y = x - line;
        while (x < a.length && y < b.length && a[x] === b[y]) [x, y] = [x + 1, y + 1];
        reach.set(line, x);
        if (x >= a.length && y >= b.length) return back(a, b, trail);
      }
    }
    return null;
  }

  function back(a, b, trail) {
    const steps = [];
    let [x, y] = [a.length, b.length];
    for (let edits = trail.length - 1; edits >= 0; edits -= 1) {
      const reach = trail[edits];
      const line = x - y;
      const down = line === -edits || (line !== edits && reach.get(line - 1) < reach.get(line + 1));
      const from = down ? line + 1 : line - 1;
      const [x0, y0] = edits === 0 ? [0, 0] : [reach.get(from), reach.get(from) - from];
      while (x > x0 && y > y0) {
        [x, y] = [x - 1, y - 1];
        steps.push(["=", a[x]]);
      }
      if (edits === 0) break;
      if (down) steps.push(["+", b[(y = y - 1)]]);
      else steps.push(["-", a[(x = x - 1)]]);
    }
    return steps.reverse();
  }

  /* The words of a rendered text with the node each stands in, mathematics left out. */
  function wordsOf(root) {
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT, (node) =>
      node.parentElement.closest(".math") ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_ACCEPT,
    );
    const found = [];
    while (walker.nextNode()) {
      let at = 0;
      for (const word of wordsCut(walker.currentNode.data)) {
        if (word.trim()) found.push({ word, node: walker.currentNode, at });
        at += word.length;
      }
    }
    return found;
  }

  /* Mark in each of two rendered texts the words that the other has not. Returns how many. */
  function differenceMark(first, second) {
    const [a, b] = [wordsOf(first), wordsOf(second)];
    const runs = difference(a.map((one) => one.word), b.map((one) => one.word));
    let [x, y, count] = [0, 0, 0];
    const marked = [];
    for (const [mark, items] of runs) {
      if (mark !== "+") x += items.length;
      if (mark !== "-") y += items.length;
      if (mark === "=") continue;
      count += items.length;
      marked.push(...(mark === "-" ? a.slice(x - items.length, x) : b.slice(y - items.length, y)));
    }
    // From the end: cutting a node leaves what stands before the cut where it was.
    for (const { word, node, at } of marked.reverse()) {
      const range = document.createRange();
      range.setStart(node, at);
      range.setEnd(node, at + word.length);
      const mark = document.createElement("mark");
      mark.className = "differs";
      range.surroundContents(mark);
    }
    return count;
  }

  function differenceClear(root) {
    for (const mark of root.querySelectorAll("mark.differs")) {
      const parent = mark.parentNode;
      mark.replaceWith(...mark.childNodes);
      parent.normalize();
    }
  }

  window.rondo = { ...window.rondo, difference, differenceClear, differenceMark, wordsCut };
})();
