/*
 * The conformance application as a plugin: no language, the host's functions only. It shows what the suite asks of the
 * host itself, and, compiled with -DFAULT=N, that the suite finds each of the mistakes that plugin.h names.
 */
#include "plugin.h"

static void hello(struct run *run)
{
	const struct langplugin_field fields[] = {plain, {TEXT("X-Method"), run->request->method}};

	begin(run, 200, fields, 2, -1);
	say(run, "hello, world");
}

static void echo(struct run *run)
{
	char block[65536];
	ssize_t got;

	begin(run, 200, &plain, 1, -1);
	while ((got = take(run, block, sizeof(block))) > 0)
		if (write_out(run, block, (size_t)got) || run->host->flush(run->call, 0) != LP_OK)
			return;
}

static void length(struct run *run)
{
	struct sha256 digest;
	char block[65536], text[128];
	long long size = 0;
	ssize_t got;

	sha256_begin(&digest);
	while ((got = take(run, block, sizeof(block))) > 0) {
		sha256_add(&digest, block, (size_t)got);
		size += got;
	}
	if (got < 0)
		return;
	int at = snprintf(text, sizeof(text), "%lld ", size);
	sha256_end(&digest, text + at);
	begin(run, 200, &plain, 1, -1);
	say(run, text);
	say(run, "\n");
}

static void half(struct run *run)
{
	int64_t known = run->request->content_length;
	int64_t left = known >= 0 ? known / 2 : 1000, size = 0;
	char block[4096], text[64];
	ssize_t got;

	while (left && (got = run->host->read(run->call, block, left < 4096 ? (size_t)left : 4096, 0)) > 0) {
		size += got;
		left = known >= 0 ? left - got : 0;
	}
	snprintf(text, sizeof(text), "half %lld\n", (long long)size);
	begin(run, 200, &plain, 1, -1);
	say(run, text);
}

static void never(struct run *run)
{
	if (FAULT == ASKS_FOR_A_BODY_IT_DOES_NOT_NEED) {
		char byte;
		run->host->read(run->call, &byte, 1, LP_NOWAIT);
		pause_for(50);
	}
	begin(run, 200, &plain, 1, 6);
	say(run, "never\n");
}

static void first(struct run *run)
{
	begin(run, 200, &plain, 1, -1);
	say(run, "first\n");
	run->host->flush(run->call, 0);
	gate(run);
	say(run, "last\n");
}

static void late(struct run *run)
{
	gate(run);
	length(run);
}

static void slept(struct run *run)
{
	pause_for(run->number);
	begin(run, 200, &plain, 1, -1);
	say(run, "slept");
}

static void hang(struct run *run)
{
	pause_for(run->number);
	begin(run, 200, &plain, 1, -1);
	say(run, "too late");
}

static void hang_read(struct run *run)
{
	char block[65536];

	while (take(run, block, sizeof(block)) > 0)
		;
	hang(run);
}

static void variable(struct run *run, const char *name, struct langplugin_text value)
{
	say(run, name);
	say(run, "=");
	write_out(run, value.data, value.size);
	say(run, "\n");
}

static void variables(struct run *run)
{
	const struct langplugin_request *request = run->request;
	static const struct langplugin_text nothing = TEXT("");

	begin(run, 200, &plain, 1, -1);
	variable(run, "REQUEST_METHOD", request->method);
	variable(run, "SCRIPT_NAME", request->script_name);
	variable(run, "PATH_INFO", request->path_info);
	variable(run, "QUERY_STRING", FAULT == SWALLOWS_THE_QUERY ? nothing : request->query);
	variable(run, "SERVER_NAME", request->server_name);
	variable(run, "SERVER_PORT", request->server_port);
	variable(run, "SERVER_PROTOCOL", request->protocol);
	variable(run, "REMOTE_ADDR", request->remote_addr);
	for (size_t i = 0; i < request->variable_count; i++)
		variable(run, request->variables[i].name.data, request->variables[i].value);
}

static void path_info(struct run *run)
{
	begin(run, 200, &plain, 1, -1);
	write_out(run, run->request->path_info.data, run->request->path_info.size);
}

static void cookies(struct run *run)
{
	const struct langplugin_request *request = run->request;

	begin(run, 200, &plain, 1, -1);
	for (size_t i = 0; i < request->variable_count; i++)
		if (strcmp(request->variables[i].name.data, "HTTP_COOKIE") == 0)
			write_out(run, request->variables[i].value.data, request->variables[i].value.size);
}

static void status(struct run *run)
{
	char text[64];

	run->application->status = (int)run->number;
	begin(run, (int)run->number, &plain, 1, -1);
	snprintf(text, sizeof(text), "status %lld\n", run->number);
	if (run->number != 204 && run->number != 304)
		say(run, text);
}

static void reason(struct run *run)
{
	run->host->respond(run->call, 299, (struct langplugin_text)TEXT("Quite Fine"), &plain, 1, 0);
}

static void headers(struct run *run)
{
	static char text[50][2][16], letters[8000];
	static const char *const cookies[] = {"a=1", "b=2; Path=/", "c=3"};
	struct langplugin_field fields[110] = {plain};
	size_t count = 1;

	for (int i = 0; i < 50; i++) {
		int size = snprintf(text[i][0], sizeof(text[i][0]), "X-Many-%d", i);
		int digits = snprintf(text[i][1], sizeof(text[i][1]), "%d", i);
		for (int times = FAULT == DOUBLES_A_FIELD && i == 49 ? 2 : 1; times; times--)
			fields[count++] = (struct langplugin_field){
				{text[i][0], (size_t)size}, {text[i][1], (size_t)digits}};
	}
	if (FAULT == JOINS_COOKIES)
		fields[count++] = (struct langplugin_field){TEXT("Set-Cookie"), TEXT("a=1, b=2; Path=/, c=3")};
	else
		for (int i = 0; i < 3; i++)
			fields[count++] = (struct langplugin_field){
				TEXT("Set-Cookie"), {cookies[i], strlen(cookies[i])}};
	memset(letters, 'x', sizeof(letters));
	fields[count++] = (struct langplugin_field){TEXT("X-Long"), {letters, sizeof(letters)}};
	begin(run, 200, fields, count, -1);
	say(run, "headers");
}

static void inject(struct run *run)
{
	const struct langplugin_field field = {TEXT("X-Bad"), TEXT("a\r\nX-Injected: 1")};

	if (run->host->respond(run->call, 200, no_reason, &field, 1, -1) == LP_INVALID)
		begin(run, 500, &plain, 1, -1);
}

static void stream(struct run *run)
{
	char text[64];

	begin(run, 200, &plain, 1, -1);
	for (long long i = 0; i < run->number; i++) {
		snprintf(text, sizeof(text), "piece %lld\n", i);
		if (write_out(run, text, strlen(text)) || run->host->flush(run->call, 0) != LP_OK)
			return;
	}
}

static void steps(struct run *run)
{
	begin(run, 200, &plain, 1, -1);
	say(run, "one\n");
	run->host->flush(run->call, 0);
	gate(run);
	say(run, "two\n");
}

static void large(struct run *run)
{
	char block[65536 + 16];
	long long size = run->number;

	begin(run, 200, &plain, 1, FAULT == BREAKS_HEAD && run->request->head ? 0 : size);
	for (long long at = 0; at < size; at += 65536) {
		long long end = at + 65536 < size ? at + 65536 : size;
		for (long long line = at; line < end; line += 16)
			sprintf(block + (line - at), "%015lld\n", line);
		if (write_out(run, block, (size_t)(end - at)))
			return;
	}
}

static void file(struct run *run)
{
	int fd = open_in(run, "file", O_RDONLY);

	begin(run, 200, &plain, 1, -1);
	if (fd < 0)
		return;
	run->host->send_file(run->call, fd, 0, -1);
	close(fd);
}

static void empty(struct run *run)
{
	if (FAULT != GIVES_NO_ANSWER)
		begin(run, 200, &plain, 1, 0);
}

static void nobody(struct run *run)
{
	begin(run, 204, NULL, 0, -1);
}

static void early(struct run *run)
{
	const struct langplugin_field link = {TEXT("Link"), TEXT("</style.css>; rel=preload")};

	run->host->inform(run->call, 103, &link, 1);
	begin(run, 200, &plain, 1, -1);
	say(run, "early");
}

static void trailers(struct run *run)
{
	const struct langplugin_field checksum = {TEXT("X-Checksum"), TEXT("12")};

	begin(run, 200, &plain, 1, -1);
	say(run, "body");
	run->host->trailers(run->call, &checksum, 1);
}

static void log_error(struct run *run)
{
	run->host->log(run->call, LP_WARNING, "conformance error", 17);
}

static void error(struct run *run)
{
	log_error(run);
	begin(run, 500, &plain, 1, -1);
}

static void error_late(struct run *run)
{
	begin(run, 200, &plain, 1, -1);
	say(run, "part\n");
	run->host->flush(run->call, 0);
	log_error(run);
	run->host->abort(run->call);
}

static void short_one(struct run *run)
{
	begin(run, 200, &plain, 1, 100);
	say(run, "short");
}

static void long_one(struct run *run)
{
	begin(run, 200, &plain, 1, 5);
	say(run, "hello, and more");
}

static void log_line(struct run *run)
{
	char text[128];
	int size = snprintf(text, sizeof(text), "conformance log %s", run->token);

	run->host->log(run->call, LP_NOTICE, text, (size_t)size);
	begin(run, 200, &plain, 1, -1);
	say(run, "logged");
}

static void process(struct run *run)
{
	char text[32];

	snprintf(text, sizeof(text), "%d", getpid());
	begin(run, 200, &plain, 1, -1);
	say(run, text);
}

static void after(struct run *run)
{
	begin(run, 200, &plain, 1, -1);
	say(run, "after");
	run->host->end(run->call);
	gate(run);
	note(run, "after");
}

static void deadline(struct run *run)
{
	uint64_t at = run->host->deadline(run->call);
	struct timespec now;
	char text[64] = "none";

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (at)
		snprintf(text, sizeof(text), "%.3f", (double)at / 1e9 - (double)now.tv_sec - (double)now.tv_nsec / 1e9);
	begin(run, 200, &plain, 1, -1);
	say(run, text);
}

static void cancelled(struct run *run)
{
	for (int i = 0; i < 2000 && (FAULT == HOLDS_ON_AFTER_CANCEL || !run->host->cancelled(run->call)); i++)
		pause_for(10);
	if (FAULT != HOLDS_ON_AFTER_CANCEL && run->host->cancelled(run->call))
		note(run, "cancelled");
}

static void upgrade(struct run *run)
{
	const struct langplugin_field field = {TEXT("Upgrade"), TEXT("conformance")};
	char block[65536];
	ssize_t got;

	if (strcmp(run->request->upgrade.data, "conformance") != 0) {
		begin(run, 426, &plain, 1, -1);
		return;
	}
	if (run->host->respond(run->call, 101, no_reason, &field, 1, -1) != LP_OK)
		return;
	while ((got = run->host->read(run->call, block, sizeof(block), 0)) > 0)
		if (write_out(run, block, (size_t)got) || run->host->flush(run->call, 0) != LP_OK)
			return;
}

static void unknown(struct run *run)
{
	begin(run, 404, &plain, 1, -1);
	say(run, "no such path");
}

static const struct {
	const char *name;
	void (*run)(struct run *run);
} paths[] = {
	{"hello", hello},
	{"echo", echo},
	{"length", length},
	{"half", half},
	{"never", never},
	{"first", first},
	{"late", late},
	{"hang", hang},
	{"hang-read", hang_read},
	{"sleep", slept},
	{"fields", variables},
	{"path_info", path_info},
	{"cookies", cookies},
	{"status", status},
	{"reason", reason},
	{"headers", headers},
	{"inject", inject},
	{"stream", stream},
	{"steps", steps},
	{"large", large},
	{"file", file},
	{"empty", empty},
	{"nobody", nobody},
	{"early", early},
	{"trailers", trailers},
	{"error", error},
	{"error-late", error_late},
	{"short", short_one},
	{"long", long_one},
	{"log", log_line},
	{"pid", process},
	{"after", after},
	{"deadline", deadline},
	{"cancelled", cancelled},
	{"upgrade", upgrade},
};

void answer(struct run *run)
{
	const char *name = run->request->path_info.data;

	name += *name == '/';
	size_t size = strcspn(name, "/");
	run->number = name[size] ? atoll(name + size + 1) : 0;
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		if (strlen(paths[i].name) == size && memcmp(paths[i].name, name, size) == 0) {
			paths[i].run(run);
			return;
		}
	unknown(run);
}
