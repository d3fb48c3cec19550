// Package schedule reconciles recurring runs with the configuration, and tells whether they happen.
//
// Desired says which schedules a configuration asks for, MakePlan compares them with those that exist, and Execute does what
// the plan says. All but Execute is pure. Only schedules that carry a Mark of the same task queue are ever changed or
// removed; a name alone proves nothing. Overdue tells, of one schedule and what it started, what should have been started
// and was not. Which policy each verb has, and why, stands in docs/schedules.md; verbs.go is the table.
//
// The package knows no Temporal: Service is what it needs of it.
package schedule
