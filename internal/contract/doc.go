// Package contract holds what programs agree on: names of workflows, activities, queues and search attributes, ids,
// and one Input and one Result for each workflow and activity. The command line's --json output is these Results.
//
// Rules that every type here keeps: JSON names are camelCase; bytes are numbers; measured durations are seconds as
// numbers, configured ones strings such as "15m"; times are RFC 3339 with a zone. Payloads carry names, figures and
// digests, never data and never secrets: Temporal's history is readable by many. Inputs are decoded strictly by
// Decode, because people type them into the Temporal UI. Defaults live in the code that uses a field, and each
// field's zero value means its default.
//
// The package imports the standard library only, so that any program can speak to Lifeboat.
package contract
