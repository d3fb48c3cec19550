package contract

// ScheduleMemo is the name of the memo that a run started by one of Lifeboat's schedules carries: the schedule's id. Such
// a run that finds its cluster busy ends with SKIPPED and a reason; one that a person started fails with ErrorBusy.
const ScheduleMemo = "lifeboatSchedule"

// ScheduleMark is the name of the memo by which Lifeboat knows its own schedules (Mark of package schedule). Others are
// never touched, whatever they are called.
const ScheduleMark = "lifeboat"
