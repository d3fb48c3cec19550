// Package activities adapts the engines to Temporal: contract types in, engine calls, contract types out.
//
// Runner does the work and knows nothing of Temporal, so that the command line can do the same with --local when
// Temporal is down (invariant 12). Register binds a Runner's methods to a worker: it adds heartbeats from real
// progress, hands work on when the worker stops, and turns engine errors into application errors whose type tells
// workflows whether trying again can help.
package activities
