/*
 * .user.ini files, from the document root down to the script's directory, as php-fpm reads them: kept for
 * user_ini.cache_ttl seconds. A file is the site owner's and may set what PHP_INI_PERDIR allows, no more.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "plugin.h"

struct user_ini {
	HashTable values;
	zend_long expires; /* seconds of the request clock */
};

static void forget(zval *entry)
{
	struct user_ini *known = Z_PTR_P(entry);
	zend_hash_destroy(&known->values);
	free(known);
}

void userini_make(struct plugin *plugin)
{
	zend_hash_init(&plugin->user_ini, 8, NULL, forget, 1);
}

void userini_free(struct plugin *plugin)
{
	zend_hash_destroy(&plugin->user_ini);
}

static struct user_ini *values_of(struct plugin *plugin, const char *directory, size_t size, zend_long now)
{
	struct user_ini *known = zend_hash_str_find_ptr(&plugin->user_ini, directory, size);
	if (!known) {
		/* Bounded: a tree of very many directories starts anew rather than growing for ever. */
		if (zend_hash_num_elements(&plugin->user_ini) >= 4096)
			zend_hash_clean(&plugin->user_ini);
		known = calloc(1, sizeof(*known));
		if (!known)
			return NULL;
		zend_hash_init(&known->values, 0, NULL, (dtor_func_t)config_zval_dtor, 1);
		zend_hash_str_update_ptr(&plugin->user_ini, directory, size, known);
	} else if (known->expires > now) {
		return known;
	}
	zend_hash_clean(&known->values);
	php_parse_user_ini_file(directory, PG(user_ini_filename), &known->values);
	known->expires = now + PG(user_ini_cache_ttl);
	return known;
}

void userini_activate(struct run *run)
{
	if (!PG(user_ini_filename) || !*PG(user_ini_filename) || !run->script)
		return;
	const char *slash = strrchr(run->script, '/');
	struct langplugin_text root = run->request->document_root;
	char directory[MAXPATHLEN];
	size_t size = slash ? (size_t)(slash - run->script) : 0;
	if (!size || size >= sizeof(directory))
		return;
	memcpy(directory, run->script, size);
	directory[size] = 0;
	zend_long now = (zend_long)sapi_get_request_time();
	size_t at = size; /* a script outside the document root has its own directory's file only */
	if (root.size && root.size <= size && memcmp(directory, root.data, root.size) == 0 &&
		(directory[root.size] == '/' || directory[root.size] == 0))
		at = root.size;
	for (;;) {
		char saved = directory[at];
		directory[at] = 0;
		struct user_ini *known = values_of(run->plugin, directory, at, now);
		directory[at] = saved;
		if (known && zend_hash_num_elements(&known->values))
			php_ini_activate_config(&known->values, PHP_INI_PERDIR, PHP_INI_STAGE_HTACCESS);
		if (at >= size)
			return;
		do
			at++;
		while (at < size && directory[at] != '/');
	}
}
