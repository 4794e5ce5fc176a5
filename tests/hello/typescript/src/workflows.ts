import { condition, defineQuery, defineSignal, proxyActivities, setHandler, sleep } from '@temporalio/workflow';
import type * as activities from './activities';

export const go = defineSignal<[string]>('go');
export const state = defineQuery<string>('state');

const { greet } = proxyActivities<typeof activities>({ startToCloseTimeout: '30s' });

/** Greets, rests, waits for a signal, and answers a query about where it is. */
export async function hello(name: string): Promise<string> {
  let now = 'started';
  let word: string | undefined;
  setHandler(state, () => now);
  setHandler(go, (said) => {
    word = said;
  });
  const greeting = await greet(name);
  now = 'greeted';
  await sleep(10);
  now = 'waiting';
  await condition(() => word !== undefined);
  now = 'done';
  return `${greeting} ${word}`;
}
