// Networks that run in the reader's page. Each section with data-live gets a button; what it loads are scripts that lie
// beside this one: the runtime, the network, and what draws and listens for its kind. Nothing leaves the machine.
(function () {
  const base = document.currentScript.src, asked = new Map(), waiting = new Map();
  const live = window.covlibLive = { kinds: {}, give, open, tools: {} };

  // ---- loading ---------------------------------------------------------------------------------------------------

  function give(name, what) {
    waiting.get(name)?.(what);
  }

  // A script beside this one, once: resolves with what it gives, or with nothing where it only registers a kind.
  function script(name, gives = true) {
    if (!asked.has(name)) asked.set(name, new Promise((resolve, reject) => {
      const tag = document.createElement("script");
      if (gives) waiting.set(name, resolve);
      else tag.onload = resolve;
      tag.onerror = () => {
        asked.delete(name);
        reject(new Error(`${name}.js is not beside this page`));
      };
      tag.src = new URL(name + ".js", base);
      document.head.append(tag);
    }));
    return asked.get(name);
  }

  async function unpack(text) {
    const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // A network in a worker of its own: {asset, run}; run takes {input: {data, dims}}, promises {output: {data, dims}}.
  async function open(name) {
    const [runtime, asset] = await Promise.all([script("runtime"), script(name)]);
    const parts = [runtime.ort, runtime.worker, runtime.mjs, runtime.wasm, asset.model];
    const [ort, code, mjs, wasm, model] = await Promise.all(parts.map(unpack));
    const address = URL.createObjectURL(new Blob([ort, "\n", code], { type: "text/javascript" }));
    const worker = new Worker(address), answers = new Map();
    let count = 0;
    const failed = (error) => { for (const { reject } of answers.values()) reject(error); };
    worker.onerror = (event) => failed(new Error(event.message || "the worker stopped"));
    worker.onmessage = ({ data }) => {
      const { resolve, reject } = answers.get(data.id);
      answers.delete(data.id);
      if (data.error) reject(new Error(data.error));
      else resolve(data.found);
    };
    const ask = (message) => new Promise((resolve, reject) => {
      answers.set(++count, { resolve, reject });
      worker.postMessage({ ...message, id: count });
    });
    await ask({ mjs, wasm, model });
    return { asset, run: (feeds) => ask({ feeds }) };
  }

  // ---- what kinds share ------------------------------------------------------------------------------------------

  // Calls of work one after the other; of those that come meanwhile only the last is done.
  function latest(work) {
    let busy = false, next = null;
    return async function ask(...given) {
      if (busy) {
        next = given;
        return;
      }
      busy = true;
      try {
        await work(...given);
      } finally {
        busy = false;
        const held = next;
        next = null;
        if (held) ask(...held);
      }
    };
  }

  function element(kind, attributes = {}, ...inside) {
    const made = document.createElement(kind);
    for (const [key, value] of Object.entries(attributes))
      if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else if (value === true) made.setAttribute(key, "");
      else if (value !== false && value != null) made.setAttribute(key, value);
    made.append(...inside);
    return made;
  }

  const button = (text, onclick) => element("button", { type: "button", onclick }, text);

  // A labelled range; its value in words follows by words(value).
  function range(title, { min, max, step = 1, value }, words, oninput) {
    const input = element("input", { type: "range", min, max, step, value, "aria-label": title });
    const said = element("output", {}, words(value));
    const tell = () => {
      said.textContent = words(Number(input.value));
      input.setAttribute("aria-valuetext", said.textContent);
    };
    input.addEventListener("input", () => { tell(); oninput?.(Number(input.value)); });
    tell();
    return { input, tell, label: element("label", {}, `${title}: `, said, input) };
  }

  // A picture of size x size pixels in a figure, enlarged by a whole number so that pixels stay square.
  // paint(colour) is called with a function (pixel, red, green, blue); synthetic pictures carry the word in them.
  function picture(title, size, synthetic, attributes = {}) {
    const times = Math.max(1, Math.round(384 / size));
    const canvas = element("canvas", { width: size * times, height: size * times, role: "img", "aria-label": title,
                                       ...attributes });
    const small = element("canvas", { width: size, height: size }), inner = small.getContext("2d");
    const pixels = inner.createImageData(size, size), context = canvas.getContext("2d");
    const colour = (k, red, green, blue) => pixels.data.set([red, green, blue, 255], 4 * k);
    function show(paint, over) {
      paint(colour);
      inner.putImageData(pixels, 0, 0);
      context.imageSmoothingEnabled = false;
      context.drawImage(small, 0, 0, canvas.width, canvas.height);
      over?.(context, times);
      if (synthetic) mark(context);
    }
    const caption = element("figcaption", {}, title);
    return { canvas, show, caption, figure: element("figure", {}, canvas, caption) };
  }

  function mark(context) {
    const { width, height } = context.canvas, letters = Math.round(width / 22), text = "SYNTHETIC";
    context.font = `bold ${letters}px sans-serif`;
    const room = context.measureText(text).width;
    context.fillStyle = "rgba(0, 0, 0, 0.75)";
    context.fillRect(width - room - letters, height - 1.6 * letters, room + letters, 1.6 * letters);
    context.fillStyle = "#fff";
    context.fillText(text, width - room - letters / 2, height - 0.45 * letters);
  }

  const grey = (value) => Math.round(255 * Math.min(1, Math.max(0, (value + 1) / 2)));

  // A change from blue (less) over white to vermilion (more); full colour at most.
  function change(colour, k, value, most) {
    const part = Math.max(-1, Math.min(1, value / most)), left = 1 - Math.abs(part);
    const [red, green, blue] = part > 0 ? [213, 94, 0] : [0, 114, 178];
    colour(k, red + (255 - red) * left, green + (255 - green) * left, blue + (255 - blue) * left);
  }

  // Numbers from 0 to 1 from a seed (mulberry32), and normal ones (Box-Muller transform).
  function uniform(seed) {
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = Math.imul(state ^ (state >>> 15), 1 | state);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
  }

  function normal(seed, count) {
    const draw = uniform(seed);
    return Float32Array.from({ length: count }, () =>
      Math.sqrt(-2 * Math.log(1 - draw())) * Math.cos(2 * Math.PI * draw()));
  }

  // Pictures side by side in one file; each carries its mark already.
  function save(canvases, name) {
    const width = canvases.reduce((sum, canvas) => sum + canvas.width, 0);
    const sheet = element("canvas", { width, height: Math.max(...canvases.map((canvas) => canvas.height)) });
    let left = 0;
    for (const canvas of canvases) {
      sheet.getContext("2d").drawImage(canvas, left, 0);
      left += canvas.width;
    }
    mark(sheet.getContext("2d"));
    sheet.toBlob((blob) => {
      const link = element("a", { href: URL.createObjectURL(blob), download: `synthetic-${name}.png` });
      link.click();
      URL.revokeObjectURL(link.href);
    });
  }

  Object.assign(live.tools, { latest, element, button, range, picture, mark, grey, change, save, unpack, uniform, normal });

  // ---- sections --------------------------------------------------------------------------------------------------

  function wire(section) {
    const without = section.querySelector(".covlib-live-without");
    if (!window.WebAssembly || !window.Worker || !window.DecompressionStream) {
      without.textContent += " This browser lacks what that needs: WebAssembly, workers and DecompressionStream.";
      return;
    }
    const megabytes = (Number(section.dataset.bytes) + Number(section.dataset.runtime)) / 1e6;
    const start = button(`Load the network, ${megabytes.toFixed(0)} MB`, async () => {
      start.disabled = true;
      start.textContent = "Loading …";
      try {
        const { live: name, kind } = section.dataset;
        const [network] = await Promise.all([open(name), script(kind, false)]);
        const tools = element("div", { class: "covlib-live-tools" });
        await live.kinds[kind](tools, network, section);
        section.classList.add("covlib-live-on");
        start.remove();
        section.append(tools);
        tools.querySelector("[data-first]")?.focus({ preventScroll: true });
      } catch (error) {
        start.textContent = "Try again";
        start.disabled = false;
        without.setAttribute("role", "alert");
        without.textContent = `It could not be loaded: ${error.message}.`;
      }
    });
    start.className = "covlib-live-load";
    without.textContent = "The network runs in this page: nothing is sent anywhere.";
    without.after(start);
  }

  document.head.append(element("link", { rel: "stylesheet", href: new URL("live.css", base) }));
  document.querySelectorAll("section[data-live][data-bytes]").forEach(wire);
})();
