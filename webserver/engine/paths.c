/*
 * From a root and a path to a descriptor, under the root's rules.
 *
 *   deny    no symbolic link below the root is followed; the result lies beneath the root
 *   owner   a link is followed, wherever it points, if its owner is also the owner of what it points to
 *   allow   links are followed, wherever they point
 *
 * The kernel's openat2 does what it can in one call. Who owns a link it cannot say; then the path is walked here, each
 * component opened in the directory before it, so that nobody can exchange a component between a check and its use. The
 * same walk serves where openat2 does not exist or a sandbox refuses it. Magic links (/proc/PID/fd) are never followed.
 */
#define _GNU_SOURCE /* O_PATH */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "files.h"

#define LINKS 40 /* on one path, as the kernel's own limit */

/* O_NONBLOCK: a FIFO or a device that stands in the way of a file must not stop the whole front end. */
#define READ_FLAGS (O_NONBLOCK | O_NOCTTY)

static const uint64_t resolve[] = {
	[ROOT_SYMLINKS_DENY] = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS,
	[ROOT_SYMLINKS_OWNER] = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS, /* links: path_walk */
	[ROOT_SYMLINKS_ALLOW] = RESOLVE_NO_MAGICLINKS,
};

bool path_allowed(struct engine_text path, uint32_t rules)
{
	size_t start = 0;
	if (path.size == 0 || path.data[0] == '/' || memchr(path.data, 0, path.size) != NULL)
		return false;
	while (start < path.size) {
		const char *slash = memchr(path.data + start, '/', path.size - start);
		size_t end = slash == NULL ? path.size : (size_t)(slash - path.data);
		bool dots = end - start <= 2 && memcmp(path.data + start, "..", end - start) == 0; /* "." and ".." */
		if (end > start && path.data[start] == '.' && (dots || !(rules & ROOT_DOTFILES)))
			return false;
		start = end + 1;
	}
	return true;
}

static struct opened failed(int error)
{
	return (struct opened){.fd = -1, .error = error};
}

/* Takes the descriptor. */
static struct opened found(int fd)
{
	struct opened o = {.fd = fd};
	if (fd < 0)
		return failed(errno);
	if (fstat(fd, &o.state) < 0) {
		int error = errno;
		close(fd);
		return failed(error);
	}
	return o;
}

struct opened path_open(int root_fd, uint32_t rules, const char *path, int flags)
{
	uint32_t links = rules & ROOT_SYMLINKS;
	struct open_how how = {
		.flags = (uint64_t)(flags | O_CLOEXEC | (flags & O_PATH ? 0 : READ_FLAGS)),
		.resolve = resolve[links],
	};
	long fd = -1;
	for (int tries = 0; tries < 8; tries++) {
		fd = syscall(SYS_openat2, root_fd, path, &how, sizeof how);
		if (fd >= 0 || (errno != EINTR && errno != EAGAIN)) /* EAGAIN: renamed about meanwhile */
			break;
	}
	if (fd < 0 && (errno == ENOSYS || errno == EPERM || (errno == ELOOP && links == ROOT_SYMLINKS_OWNER)))
		return path_walk(root_fd, rules, path, flags);
	struct opened o = found((int)fd);
	o.linked = links == ROOT_SYMLINKS_ALLOW;
	return o;
}

struct opened path_look(const struct root *root, struct engine_text path, bool probe)
{
	char text[FILES_PATH];
	if (!path_allowed(path, root->flags))
		return (struct opened){.fd = -1, .error = ENOENT};
	if (path.size >= sizeof text)
		return (struct opened){.fd = -1, .error = ENAMETOOLONG};
	memcpy(text, path.data, path.size);
	text[path.size] = 0;
	/* Whoever only asks whether a program is there may know. */
	bool source = !probe && root_holds_source(root, path);
	struct opened o = path_open(root->fd, root->flags, text, probe || source ? O_PATH : O_RDONLY);
	if (!probe && !source && o.fd >= 0 && o.linked && S_ISREG(o.state.st_mode))
		source = root->script_count > 0 && root_holds_source_at(root, o.fd);
	if (source && o.fd >= 0 && !S_ISDIR(o.state.st_mode)) {
		close(o.fd);
		return (struct opened){.fd = -1, .error = NOT_SENT};
	}
	if (o.fd >= 0 || o.error != EACCES || probe)
		return o;
	/* A directory may be entered though its names may not be read: it is there all the same. */
	struct opened directory = path_open(root->fd, root->flags, text, O_PATH);
	if (directory.fd >= 0 && S_ISDIR(directory.state.st_mode))
		return directory;
	if (directory.fd >= 0)
		close(directory.fd);
	return o;
}

/* ---- the walk */

struct walk {
	int root_fd;
	int here;	   /* O_PATH of what has been reached; may be root_fd */
	int parent;	   /* where `name` was found; -1: here was not reached by a name */
	struct stat state; /* of here */
	char name[256];	   /* NAME_MAX and its NUL */
	const char *rest;  /* in text */
	char text[2 * FILES_PATH];
	unsigned link_count; /* seen so far */
	unsigned pending;    /* links whose target has not been reached */
	struct {
		uid_t owner;
		size_t left; /* the target is reached when no more than this much of the path is left */
	} link[LINKS];
};

static void drop(const struct walk *w, int fd)
{
	if (fd >= 0 && fd != w->root_fd)
		close(fd);
}

/* here becomes fd, which was reached by w->name (or not: by_name false). 0 or errno. */
static int step_to(struct walk *w, int fd, const struct stat *state, bool by_name)
{
	drop(w, w->parent);
	w->parent = -1;
	if (by_name)
		w->parent = w->here;
	else
		drop(w, w->here);
	w->here = fd;
	w->state = *state;
	return 0;
}

static int step_to_top(struct walk *w)
{
	struct opened top = found(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
	return top.fd < 0 ? top.error : step_to(w, top.fd, &top.state, false);
}

/* Puts the link's text before what is left of the path. Takes fd. */
static int follow_link(struct walk *w, int fd, const struct stat *state)
{
	char target[FILES_PATH];
	ssize_t size = readlinkat(fd, "", target, sizeof target);
	int error = size < 0 ? errno : 0;
	size_t left = strlen(w->rest);
	close(fd);
	if (error != 0)
		return error;
	if (size == 0 || w->link_count == LINKS)
		return ELOOP;
	if ((size_t)size + 1 + left >= FILES_PATH)
		return ENAMETOOLONG;
	/* rest lies within text: move it to its new place first. */
	memmove(w->text + size + 1, w->rest, left + 1);
	memcpy(w->text, target, (size_t)size);
	w->text[size] = '/';
	w->rest = w->text;
	w->link_count++;
	w->link[w->pending].owner = state->st_uid;
	w->link[w->pending].left = left;
	w->pending++;
	return target[0] == '/' ? step_to_top(w) : 0;
}

/* One component further. 0 or errno. */
static int step(struct walk *w, uint32_t links)
{
	size_t size = strcspn(w->rest, "/");
	if (!S_ISDIR(w->state.st_mode))
		return ENOTDIR;
	if (size >= sizeof w->name)
		return ENAMETOOLONG;
	memcpy(w->name, w->rest, size);
	w->name[size] = 0;
	w->rest += size;
	w->rest += strspn(w->rest, "/");
	if (strcmp(w->name, ".") == 0)
		return 0;
	bool up = strcmp(w->name, "..") == 0; /* only from a link's text: path_allowed lets none in */
	struct opened o = found(openat(w->here, w->name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
	if (o.fd < 0)
		return o.error;
	if (!S_ISLNK(o.state.st_mode))
		return step_to(w, o.fd, &o.state, !up);
	if (links == ROOT_SYMLINKS_DENY) {
		close(o.fd);
		return ELOOP;
	}
	return follow_link(w, o.fd, &o.state);
}

/* Links whose target has been reached: its owner must be the link's. */
static int check_owners(struct walk *w, uint32_t links)
{
	size_t left = strlen(w->rest);
	while (w->pending > 0 && left <= w->link[w->pending - 1].left) {
		w->pending--;
		if (links == ROOT_SYMLINKS_OWNER && w->link[w->pending].owner != w->state.st_uid)
			return ELOOP;
	}
	return 0;
}

/* A descriptor with these flags for what the walk has reached. */
static struct opened reach(const struct walk *w, int flags)
{
	if (flags & O_PATH)
		return found(fcntl(w->here, F_DUPFD_CLOEXEC, 0));
	flags |= O_CLOEXEC | READ_FLAGS;
	if (S_ISDIR(w->state.st_mode))
		return found(openat(w->here, ".", flags | O_DIRECTORY));
	if (w->parent < 0)
		return failed(ENOTDIR);
	struct opened o = found(openat(w->parent, w->name, flags | O_NOFOLLOW));
	if (o.fd >= 0 && (o.state.st_dev != w->state.st_dev || o.state.st_ino != w->state.st_ino)) {
		close(o.fd);
		return failed(EAGAIN); /* exchanged since it was checked */
	}
	return o;
}

struct opened path_walk(int root_fd, uint32_t rules, const char *path, int flags)
{
	struct walk w = {.root_fd = root_fd, .here = root_fd, .parent = -1};
	uint32_t links = rules & ROOT_SYMLINKS;
	size_t size = strlen(path);
	if (size >= FILES_PATH)
		return failed(ENAMETOOLONG);
	if (fstat(root_fd, &w.state) < 0)
		return failed(errno);
	memcpy(w.text, path, size + 1);
	w.rest = w.text + strspn(w.text, "/");
	int error = 0;
	while (error == 0 && *w.rest != 0) {
		error = step(&w, links);
		w.rest += strspn(w.rest, "/");
		if (error == 0)
			error = check_owners(&w, links);
	}
	struct opened o = error != 0 ? failed(error) : reach(&w, flags);
	o.linked = w.link_count > 0;
	drop(&w, w.parent);
	drop(&w, w.here);
	return o;
}
