/*
 * The values of a group's [ini]: written as php.ini text before PHP starts, and looked at afterwards, because PHP
 * itself drops a directive that it does not know, or a value that it does not like, without a word.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "plugin.h"

/* E_ALL & ~E_DEPRECATED: php.ini works these out, but not within quotes. */
static bool is_constants(const char *value)
{
	return strstr(value, "E_") != NULL && strspn(value, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_ &|~^()") == strlen(value);
}

/* What php.ini makes of the words for yes and no, which within quotes would stay words: "Off" is true to a program. */
static const char *plain_word(const char *value)
{
	static const char *const yes[] = {"on", "yes", "true"}, *const no[] = {"off", "no", "false", "none", "null"};

	for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++)
		if (strcasecmp(value, yes[i]) == 0)
			return "1";
	for (size_t i = 0; i < sizeof(no) / sizeof(no[0]); i++)
		if (strcasecmp(value, no[i]) == 0)
			return "";
	return value;
}

/* In quotes, so that nothing in it is taken for more syntax; a backslash at its end would take the quote with it. */
static char *quoted(const char *value)
{
	char *text = malloc(strlen(value) * 2 + 3), *to = text;

	if (!text)
		return NULL;
	*to++ = '"';
	for (; *value; value++) {
		if (*value == '\\')
			*to++ = '\\';
		*to++ = *value;
	}
	strcpy(to, "\"");
	return text;
}

/* Add one value in php.ini's syntax. */
int ini_add(struct plugin *plugin, const char *name, const char *value, char *message, size_t size)
{
	char *more = NULL;

	if (strpbrk(name, "\r\n=[]\";")) {
		snprintf(message, size, "php: '%s' is not the name of an ini value", name);
		return -1;
	}
	if (strpbrk(value, "\r\n\"")) {
		snprintf(message, size, "php: the value of ini.%s holds a quote or a line break", name);
		return -1;
	}
	char *text = is_constants(value) ? strdup(value) : quoted(plain_word(value));
	int written = text ? asprintf(&more, "%s%s=%s\n", plugin->ini ? plugin->ini : "", name, text) : -1;
	free(text);
	if (written < 0) {
		snprintf(message, size, "php: no memory for ini.%s", name);
		return -1;
	}
	free(plugin->ini);
	plugin->ini = more;
	return 0;
}

/* These are read at the start and kept nowhere; what cannot be loaded is in PHP's own warnings. */
static bool is_extension(const char *name)
{
	return strcmp(name, "extension") == 0 || strcmp(name, "zend_extension") == 0;
}

static int check_one(const char *name, const char *value, char *message, size_t size)
{
	zend_ini_entry *entry = zend_hash_str_find_ptr(EG(ini_directives), name, strlen(name));

	if (entry == NULL) {
		snprintf(message, size,
			"php: [ini] %s: PHP has no such directive; is it misspelt, or its extension not installed?",
			name);
		return -1;
	}
	/* Modified: an extension has worked it out anew. ${...} and constants: the scanner has. */
	if (entry->modified || strchr(value, '$') || is_constants(value))
		return 0;
	const char *wanted = plain_word(value);
	if (entry->value == NULL ? *wanted != 0 : strcmp(ZSTR_VAL(entry->value), wanted) != 0) {
		snprintf(message, size, "php: [ini] %s = %s: PHP does not take this value, and has %s instead", name,
			value, entry->value ? ZSTR_VAL(entry->value) : "none");
		return -1;
	}
	return 0;
}

/* After PHP's start. 0, or -1 and a message about the first that has no effect. */
int ini_check(const struct langplugin_setting *settings, size_t count, char *message, size_t size)
{
	for (size_t i = 0; i < count; i++) {
		const char *name = settings[i].name;
		if (strncmp(name, "ini.", 4) == 0 && !is_extension(name + 4) &&
			check_one(name + 4, settings[i].value, message, size))
			return -1;
	}
	return 0;
}
