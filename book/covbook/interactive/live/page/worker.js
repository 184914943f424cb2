// Runs in a worker, behind ONNX Runtime Web's own script: makes a session from what the page sends, then answers.
let session = null;

async function start({ mjs, wasm, model }) {
  ort.env.wasm.numThreads = 1;  // more would need headers that a page opened as a file cannot have
  ort.env.wasm.wasmBinary = wasm;
  ort.env.wasm.wasmPaths = { mjs: URL.createObjectURL(new Blob([mjs], { type: "text/javascript" })) };
  session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  return {};
}

async function run({ feeds }) {
  const given = {}, found = {};
  for (const [name, { data, dims }] of Object.entries(feeds)) given[name] = new ort.Tensor("float32", data, dims);
  for (const [name, tensor] of Object.entries(await session.run(given)))
    found[name] = { data: tensor.data.slice(), dims: tensor.dims };
  return found;
}

onmessage = async ({ data }) => {
  try {
    postMessage({ id: data.id, found: await (data.model ? start(data) : run(data)) });
  } catch (error) {
    postMessage({ id: data.id, error: String(error?.message ?? error) });
  }
};
