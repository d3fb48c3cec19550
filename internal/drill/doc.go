// Package drill rehearses disasters on laid restores, and proves that what came back is what should have.
//
// Proof rests on pairs: something from just before the target that must be there, and something from just after it
// that must not. One half alone is satisfied by restoring everything, or nothing. Two kinds of pairs are used: canary
// rows that the drill writes into the protected cluster around the target that it then aims at, and, for any target,
// the last transaction that the archived WAL has before the stop and the first one behind it.
//
// A drill never changes the protected cluster beyond its canary rows (invariant 13).
package drill
