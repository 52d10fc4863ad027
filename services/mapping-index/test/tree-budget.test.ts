import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TreeBudget } from '../tree-budget.ts';

test('what is taken comes back once, and no more is given than there is', () => {
  const budget = new TreeBudget(100);
  const first = budget.take(60)!;
  assert.equal(budget.take(41), null);
  const second = budget.take(40)!;
  assert.equal(budget.taken, 100);
  first();
  first();
  assert.equal(budget.taken, 40);
  second();
  assert.equal(budget.taken, 0);
});
