// Three requests by Node's own https module through one agent.
//
// Usage: node fetch.mjs URL CA CERTIFICATE KEY
import { readFileSync } from "node:fs";
import https from "node:https";

const [url, ...files] = process.argv.slice(2);
const [ca, cert, key] = files.map((file) => readFileSync(file));
const agent = new https.Agent({ ca, cert, key, keepAlive: true });
for (let number = 0; number < 3; number++) {
  const status = await new Promise((done, failed) => {
    https
      .get(url, { agent }, (answer) => answer.resume().on("end", () => done(answer.statusCode)))
      .on("error", failed);
  });
  if (status !== 200) process.exit(1);
}
