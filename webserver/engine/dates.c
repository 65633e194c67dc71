/* HTTP dates: see dates.h. */
#include "dates.h"

#include <string.h>

static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
static const char days[] = "SunMonTueWedThuFriSat";
static const char *const long_days[] = {"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"};

/* Counted in years that begin in March, so that the leap day is a year's last, and in 400-year cycles. */
int64_t date_days(int64_t year, unsigned month, unsigned day)
{
	int64_t y = month <= 2 ? year - 1 : year;
	int64_t cycle = (y >= 0 ? y : y - 399) / 400;
	int64_t of_cycle = y - cycle * 400;
	int64_t of_year = (153 * (int64_t)(month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
	return cycle * 146097 + of_cycle * 365 + of_cycle / 4 - of_cycle / 100 + of_year - 719468;
}

void date_of_days(int64_t days_since, int64_t *year, unsigned *month, unsigned *day)
{
	int64_t z = days_since + 719468;
	int64_t cycle = (z >= 0 ? z : z - 146096) / 146097;
	int64_t of_cycle = z - cycle * 146097;
	int64_t y = (of_cycle - of_cycle / 1460 + of_cycle / 36524 - of_cycle / 146096) / 365;
	int64_t of_year = of_cycle - (365 * y + y / 4 - y / 100);
	int64_t m = (5 * of_year + 2) / 153;
	*day = (unsigned)(of_year - (153 * m + 2) / 5 + 1);
	*month = (unsigned)(m < 10 ? m + 3 : m - 9);
	*year = y + cycle * 400 + (*month <= 2);
}

static void put_digits(char *out, unsigned value, int count)
{
	while (count-- > 0) {
		out[count] = (char)('0' + value % 10);
		value /= 10;
	}
}

void date_format(int64_t seconds, char *out)
{
	int64_t year;
	unsigned month, day;
	if (seconds < 0)
		seconds = 0;
	if (seconds > DATE_LAST)
		seconds = DATE_LAST;
	unsigned of_day = (unsigned)(seconds % 86400);
	date_of_days(seconds / 86400, &year, &month, &day);
	memcpy(out, "Sun, 00 Jan 0000 00:00:00 GMT", DATE_SIZE + 1);
	memcpy(out, days + 3 * ((seconds / 86400 + 4) % 7), 3); /* 1970-01-01 was a Thursday */
	put_digits(out + 5, day, 2);
	memcpy(out + 8, months + 3 * (month - 1), 3);
	put_digits(out + 12, (unsigned)year, 4);
	put_digits(out + 17, of_day / 3600, 2);
	put_digits(out + 20, of_day / 60 % 60, 2);
	put_digits(out + 23, of_day % 60, 2);
}

/* ---- parsing: each form is a pattern, read from left to right */

struct parts {
	unsigned day, month, year, hour, minute, second;
};

struct reader {
	const char *at, *end;
};

static bool read_digits(struct reader *r, int count, unsigned *value)
{
	*value = 0;
	if (r->end - r->at < count)
		return false;
	while (count-- > 0) {
		if (*r->at < '0' || *r->at > '9')
			return false;
		*value = *value * 10 + (unsigned)(*r->at++ - '0');
	}
	return true;
}

/* One of several names of three letters, numbered from 1. */
static bool read_name(struct reader *r, const char *names, size_t count, unsigned *number)
{
	if (r->end - r->at < 3)
		return false;
	for (size_t i = 0; i < count; i++)
		if (memcmp(r->at, names + 3 * i, 3) == 0) {
			r->at += 3;
			*number = (unsigned)i + 1;
			return true;
		}
	return false;
}

static bool read_long_day(struct reader *r)
{
	for (size_t i = 0; i < 7; i++) {
		size_t size = strlen(long_days[i]);
		if ((size_t)(r->end - r->at) >= size && memcmp(r->at, long_days[i], size) == 0) {
			r->at += size;
			return true;
		}
	}
	return false;
}

/*
 * w: short day name   W: long day name   m: month name   d: day, 2 digits   e: day, 2 digits or a space and one
 * y: year, 2 digits   Y: year, 4 digits  t: hh:mm:ss     others: themselves
 */
static bool read_pattern(struct reader *r, const char *pattern, struct parts *p)
{
	unsigned ignored;
	for (; *pattern != 0; pattern++) {
		bool ok;
		switch (*pattern) {
		case 'w':
			ok = read_name(r, days, 7, &ignored);
			break;
		case 'W':
			ok = read_long_day(r);
			break;
		case 'm':
			ok = read_name(r, months, 12, &p->month);
			break;
		case 'd':
			ok = read_digits(r, 2, &p->day);
			break;
		case 'y':
			ok = read_digits(r, 2, &p->year);
			break;
		case 'Y':
			ok = read_digits(r, 4, &p->year);
			break;
		case 't':
			ok = read_pattern(r, "h:i:s", p);
			break;
		case 'h':
			ok = read_digits(r, 2, &p->hour);
			break;
		case 'i':
			ok = read_digits(r, 2, &p->minute);
			break;
		case 's':
			ok = read_digits(r, 2, &p->second);
			break;
		case 'e':
			if (r->at < r->end && *r->at == ' ') {
				r->at++;
				ok = read_digits(r, 1, &p->day);
			} else {
				ok = read_digits(r, 2, &p->day);
			}
			break;
		default:
			ok = r->at < r->end && *r->at == *pattern;
			r->at += ok;
		}
		if (!ok)
			return false;
	}
	return true;
}

static unsigned days_in(unsigned year, unsigned month)
{
	static const uint8_t in_month[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
	return month == 2 && leap ? 29 : in_month[month - 1];
}

static bool parts_ok(const struct parts *p)
{
	/* 60: a leap second, taken as the second after 59 */
	return p->day >= 1 && p->day <= days_in(p->year, p->month) && p->hour <= 23 && p->minute <= 59 &&
	       p->second <= 60;
}

/* RFC 9110: a two-digit year that seems more than 50 years ahead is the most recent year with these digits in the past.
 */
static unsigned whole_year(unsigned digits, int64_t now_seconds)
{
	int64_t this_year;
	unsigned month, day;
	if (now_seconds < 0)
		now_seconds = 0;
	date_of_days(now_seconds / 86400, &this_year, &month, &day);
	int64_t year = this_year - this_year % 100 + digits;
	if (year > this_year + 50)
		year -= 100;
	return (unsigned)year;
}

bool date_parse(const char *text, size_t size, int64_t now_seconds, int64_t *seconds)
{
	static const struct {
		const char *pattern;
		bool two_digits;
	} forms[] = {
		{"w, d m Y t GMT", false},
		{"W, d-m-y t GMT", true},
		{"w m e t Y", false},
	};
	for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
		struct reader r = {text, text + size};
		struct parts p = {0};
		if (!read_pattern(&r, forms[i].pattern, &p) || r.at != r.end)
			continue;
		if (forms[i].two_digits)
			p.year = whole_year(p.year, now_seconds);
		if (!parts_ok(&p))
			return false;
		*seconds = date_days(p.year, p.month, p.day) * 86400 + p.hour * 3600 + p.minute * 60 + p.second;
		return true;
	}
	return false;
}
