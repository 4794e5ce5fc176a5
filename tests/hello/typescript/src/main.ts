/**
 * A hello world of the TypeScript SDK: an activity, a timer, a signal and a query.
 * Exits with 0 if all of it worked. EVERSPAN_ADDRESS names the server.
 */
import { Client, Connection } from '@temporalio/client';
import { NativeConnection, Worker } from '@temporalio/worker';
import * as activities from './activities';
import { go, hello, state } from './workflows';

const PATIENCE_MS = 60_000;

async function main(): Promise<void> {
  const address = process.env.EVERSPAN_ADDRESS ?? '127.0.0.1:7233';
  const id = `hello-typescript-${process.pid}-${Date.now()}`;
  const workerConnection = await NativeConnection.connect({ address });
  const worker = await Worker.create({
    connection: workerConnection,
    taskQueue: id,
    workflowsPath: require.resolve('./workflows'),
    activities,
  });
  const connection = await Connection.connect({ address });
  try {
    const client = new Client({ connection });
    const result = await worker.runUntil(async () => {
      const handle = await client.workflow.start(hello, { args: ['TypeScript'], taskQueue: id, workflowId: id });
      while ((await handle.query(state)) !== 'waiting');
      await handle.signal(go, 'Goodbye.');
      return await handle.result();
    });
    if (result !== 'Hello, TypeScript! Goodbye.') throw new Error(`got ${result}`);
    console.log(result);
  } finally {
    await connection.close();
    await workerConnection.close();
  }
}

setTimeout(() => {
  console.error('not done in time');
  process.exit(2);
}, PATIENCE_MS).unref();

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
