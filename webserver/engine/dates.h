/* HTTP dates (RFC 9110 section 5.6.7). Pure functions. */
#ifndef WEBSERVER_ENGINE_DATES_H
#define WEBSERVER_ENGINE_DATES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DATE_SIZE 29			/* "Sun, 06 Nov 1994 08:49:37 GMT" */
#define DATE_LAST INT64_C(253402300799) /* the end of year 9999 */

/* Days from 1970-01-01 and back, proleptic Gregorian. month and day count from 1. */
int64_t date_days(int64_t year, unsigned month, unsigned day);
void date_of_days(int64_t days, int64_t *year, unsigned *month, unsigned *day);

/* IMF-fixdate and a NUL into out[DATE_SIZE + 1]. Seconds outside of 1970 to 9999 are taken as the nearest of them. */
void date_format(int64_t seconds, char *out);
/*
 * Any of the three forms: IMF-fixdate, RFC 850 with two digits for the year (more than 50 years after now_seconds means
 * a century earlier), asctime. The whole text must be the date; the name of the day is not checked against it.
 */
bool date_parse(const char *text, size_t size, int64_t now_seconds, int64_t *seconds);

#endif
