package schedule

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Set is small numbers, as bits.
type Set uint64

// Has tells whether n is in the set.
func (s Set) Has(n int) bool { return s&(1<<n) != 0 }

// Calendar is five cron fields, of which all must hold. Equal ones mean the same times. Sunday is 0.
type Calendar struct {
	Minute, Hour, DayOfMonth, Month, DayOfWeek Set
}

// field is what one of the five may contain.
type field struct {
	name     string
	min, max int
	words    []string // names of the numbers from min on
	of       func(*Calendar) *Set
}

var (
	minuteField  = field{"minute", 0, 59, nil, func(c *Calendar) *Set { return &c.Minute }}
	hourField    = field{"hour", 0, 23, nil, func(c *Calendar) *Set { return &c.Hour }}
	dayField     = field{"day of month", 1, 31, nil, func(c *Calendar) *Set { return &c.DayOfMonth }}
	monthField   = field{"month", 1, 12, strings.Fields("jan feb mar apr may jun jul aug sep oct nov dec"), func(c *Calendar) *Set { return &c.Month }}
	weekdayField = field{"day of week", 0, 7, strings.Fields("sun mon tue wed thu fri sat"), func(c *Calendar) *Set { return &c.DayOfWeek }}

	fields = []field{minuteField, hourField, dayField, monthField, weekdayField}
)

// ParseCron reads five cron fields: numbers, names of months and days, lists, ranges and steps; Sunday is 0 or 7. An
// expression that restricts both the day of the month and the day of the week is refused: cron starts it when either
// holds, Temporal when both do, and nobody should have to know which. So is one whose day never comes (30 February).
func ParseCron(text string) (*Calendar, error) {
	words := strings.Fields(text)
	if len(words) != len(fields) {
		return nil, fmt.Errorf("cron %q has %d fields, not five: minute hour day-of-month month day-of-week", text, len(words))
	}
	c := &Calendar{}
	for i, f := range fields {
		for part := range strings.SplitSeq(words[i], ",") {
			numbers, err := f.part(part)
			if err != nil {
				return nil, fmt.Errorf("cron %q: %s %q: %w", text, f.name, part, err)
			}
			*f.of(c) |= numbers
		}
	}
	if c.DayOfWeek.Has(7) { // Sunday by its other number
		c.DayOfWeek = c.DayOfWeek&^(1<<7) | 1
	}
	if c.DayOfMonth != everyDay && c.DayOfWeek != everyWeekday {
		return nil, fmt.Errorf("cron %q restricts both the day of the month and the day of the week, which cron reads as either and Temporal as both: write * for one of them", text)
	}
	leap := time.Date(2028, 12, 31, 23, 59, 0, 0, time.UTC) // nine years before it have all days there are
	if _, ok := c.Before(leap, time.UTC); !ok {
		return nil, fmt.Errorf("cron %q names a day that no month has", text)
	}
	return c, nil
}

const (
	everyDay     Set = 1<<32 - 2
	everyWeekday Set = 1<<7 - 1
)

// part reads one member of a list: *, N, N-M, each with a step or without; N/STEP runs to the end, as for cron.
func (f field) part(text string) (Set, error) {
	span, stepText, stepped := strings.Cut(text, "/")
	first, last, step := f.min, f.max, 1
	var err error
	if stepped {
		if step, err = strconv.Atoi(stepText); err != nil || step < 1 || step > f.max {
			return 0, fmt.Errorf("the step must be a number from 1 to %d", f.max)
		}
	}
	if span != "*" {
		from, to, ranged := strings.Cut(span, "-")
		if first, err = f.number(from); err != nil {
			return 0, err
		}
		if ranged {
			if last, err = f.number(to); err != nil {
				return 0, err
			}
		} else if !stepped {
			last = first
		}
	}
	if last < first {
		return 0, errors.New("the range runs backwards")
	}
	if f.name == weekdayField.name && last == f.max && (span == "*" || stepped && !strings.Contains(span, "-")) {
		last = f.max - 1 // no second Sunday that nobody wrote
	}
	var out Set
	for n := first; n <= last; n += step {
		out |= 1 << n
	}
	return out, nil
}

func (f field) number(text string) (int, error) {
	if i := slices.Index(f.words, strings.ToLower(text)); i >= 0 {
		return f.min + i, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < f.min || n > f.max {
		return 0, fmt.Errorf("must be from %d to %d", f.min, f.max)
	}
	return n, nil
}

// String writes the fields as lists of numbers: equal calendars read the same.
func (c *Calendar) String() string {
	var words []string
	for _, f := range fields {
		numbers, all := []string{}, true
		for n := f.min; n <= f.max; n++ {
			if f.of(c).Has(n) {
				numbers = append(numbers, strconv.Itoa(n))
			} else if n < 7 || f.name != weekdayField.name {
				all = false
			}
		}
		if all {
			numbers = []string{"*"}
		}
		words = append(words, strings.Join(numbers, ","))
	}
	return strings.Join(words, " ")
}

// farthest is how far back a slot may lie: 29 February, over a century that skips one.
const farthest = 9 * 366

// Before is the newest time of the calendar that is not after t; ok is false if there is none within nine years. A clock
// time that a day does not have, when the clocks go forward, is none. Of one that a day has twice it is the first.
func (c *Calendar) Before(t time.Time, zone *time.Location) (at time.Time, ok bool) {
	t = t.In(zone)
	for back := range farthest {
		day := time.Date(t.Year(), t.Month(), t.Day()-back, 12, 0, 0, 0, zone) // noon: no zone skips it
		if !c.Month.Has(int(day.Month())) || !c.DayOfMonth.Has(day.Day()) || !c.DayOfWeek.Has(int(day.Weekday())) {
			continue
		}
		if at, ok := c.lastOf(day, t, zone); ok {
			return at, true
		}
	}
	return time.Time{}, false
}

// lastOf is the last time of one day that is not after t.
func (c *Calendar) lastOf(day, t time.Time, zone *time.Location) (time.Time, bool) {
	for h := 23; h >= 0; h-- {
		for m := 59; m >= 0; m-- {
			if !c.Hour.Has(h) || !c.Minute.Has(m) {
				continue
			}
			at := time.Date(day.Year(), day.Month(), day.Day(), h, m, 0, 0, zone)
			if at.Hour() == h && at.Minute() == m && !at.After(t) {
				return at, true
			}
		}
	}
	return time.Time{}, false
}

// shortestGap is the least time between two starts of the calendar, at most a day.
func (c *Calendar) shortestGap() time.Duration {
	first, last, least := -1, -1, 24*60
	for at := range 24 * 60 {
		if !c.Hour.Has(at/60) || !c.Minute.Has(at%60) {
			continue
		}
		if first < 0 {
			first = at
		} else {
			least = min(least, at-last)
		}
		last = at
	}
	return time.Duration(min(least, first+24*60-last)) * time.Minute
}
