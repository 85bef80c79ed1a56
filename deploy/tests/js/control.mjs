// Asks whoever runs this test to do something with the system: a line out, and a line back once it is done.

import { createInterface } from "node:readline";

const lines = createInterface({ input: process.stdin });
const answers = lines[Symbol.asyncIterator]();

export async function please(wish) {
  process.stdout.write(`please ${wish}\n`);
  const { value } = await answers.next();
  if (value !== `done ${wish}`) throw new Error(`asked to ${wish}, and was answered: ${value}`);
}

/** No more wishes. */
export function thanks() {
  lines.close();
  process.stdin.destroy();
}
