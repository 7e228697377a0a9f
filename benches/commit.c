/*
 * commit.c - the floor under `pipeline-state state set`: the same durable update in as little C as it takes.
 *
 *     commit ROOT VALUE          AUDIT_LOG names the audit log; ROOT/.pipeline-audit.log if it is not set
 *
 * What it is: the system calls of a commit in the order of the commit protocol. Open the root, flock
 * .locks/state.lock, list .state-backups, read the live file, read the mirror and compare, write and fsync a temporary
 * file, write the mirror's, link the old file to a backup's name, look once more at the lock and the live file, rename,
 * fsync the directory, exchange the mirror, drop the oldest backup beyond five, append to the journal and to the audit
 * log, confirm.
 *
 * What it is not: a program to use. It replaces "phase" and counts "revision" up as text; it parses no JSON, checks no
 * digest and makes none (so its root is no pipeline-state root any more), heals nothing, judges no owner or mode, leaves
 * its temporary files behind when it fails, and takes no options. What `state set` costs more than this program is what
 * those things cost.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define STATE ".workflow-state.json"
#define BACKUPS ".state-backups"
#define LOCK ".locks/state.lock"
#define MIRROR "mirror.json"
#define JOURNAL "journal.jsonl"
#define READ_FLAGS (O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)
#define APPEND_FLAGS (O_RDWR | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)

enum { KEPT = 5 };

struct text {
    char *bytes; /* followed by a NUL, which is not counted */
    size_t length;
    struct stat stat;
};

static void die(const char *what)
{
    fprintf(stderr, "commit: %s: %s\n", what, errno != 0 ? strerror(errno) : "not as it should be");
    exit(1);
}

/* Ends the program, naming the failed call, unless `ok`. */
static void need(int ok, const char *what)
{
    if (!ok)
        die(what);
}

static struct text read_whole(int dir, const char *name)
{
    struct text text;
    int fd = openat(dir, name, READ_FLAGS);
    need(fd >= 0 && fstat(fd, &text.stat) == 0, name);
    text.length = (size_t)text.stat.st_size;
    text.bytes = malloc(text.length + 1);
    need(text.bytes != NULL, name);
    need(read(fd, text.bytes, text.length + 1) == (ssize_t)text.length, name);
    text.bytes[text.length] = '\0';
    close(fd);
    return text;
}

/* Writes a new file, and syncs it if `sync`. */
static void write_new(int dir, const char *name, struct text text, int sync)
{
    int fd = openat(dir, name, APPEND_FLAGS | O_CREAT | O_EXCL, 0600);
    need(fd >= 0, name);
    need(write(fd, text.bytes, text.length) == (ssize_t)text.length, name);
    need(!sync || fsync(fd) == 0, name);
    close(fd);
}

/* Counts the backups and finds the one of the lowest revision. */
static int list_backups(int dir, char oldest[256])
{
    int count = 0;
    unsigned long lowest = 0;
    DIR *listing;
    int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    need(fd >= 0 && (listing = fdopendir(fd)) != NULL, BACKUPS);
    for (struct dirent *entry; (entry = readdir(listing)) != NULL;) {
        unsigned long revision;
        if (sscanf(entry->d_name, "state-%*8[0-9]-%*6[0-9]-r%lu-", &revision) != 1)
            continue;
        if (count++ == 0 || revision < lowest) {
            lowest = revision;
            snprintf(oldest, 256, "%s", entry->d_name);
        }
    }
    closedir(listing);
    return count;
}

/* The text with what stands between `key` and the next of `end` replaced by `value`. */
static struct text replace(struct text text, const char *key, const char *end, const char *value)
{
    struct text made = {0};
    char *from = strstr(text.bytes, key);
    errno = 0;
    need(from != NULL, key);
    from += strlen(key);
    made.bytes = malloc(text.length + strlen(value) + 1);
    need(made.bytes != NULL, key);
    made.length = (size_t)sprintf(made.bytes, "%.*s%s%s", (int)(from - text.bytes), text.bytes, value,
                                  from + strcspn(from, end));
    return made;
}

struct utc {
    int year, month, day, hour, minute, second;
};

/* The calendar by hand: gmtime(3) would read the time zone's file first. */
static struct utc utc_of(long now)
{
    long days = now / 86400, second = now % 86400;
    long era_day = (days + 719468) % 146097, era = (days + 719468) / 146097; /* eras of 400 years from 0000-03-01 */
    long year = (era_day - era_day / 1460 + era_day / 36524 - era_day / 146096) / 365;
    long year_day = era_day - (365 * year + year / 4 - year / 100);
    long month = (5 * year_day + 2) / 153; /* from March */
    return (struct utc){
        .year = (int)(year + era * 400 + (month >= 10)),
        .month = (int)(month < 10 ? month + 3 : month - 9),
        .day = (int)(year_day - (153 * month + 2) / 5 + 1),
        .hour = (int)(second / 3600),
        .minute = (int)(second / 60 % 60),
        .second = (int)(second % 60),
    };
}

static int same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

static int unchanged(const struct stat *a, const struct stat *b)
{
    return same_file(a, b) && a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
           a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

int main(int argc, char **argv)
{
    struct stat lock_stat, stat;
    char oldest[256], revision[24], state_tmp[64], mirror_tmp[64], compact[80], iso[80], backup[128], line[640];

    if (argc != 3) {
        fprintf(stderr, "usage: commit ROOT VALUE\n");
        return 64;
    }

    int root = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    need(root >= 0, argv[1]);
    int lock = openat(root, LOCK, APPEND_FLAGS);
    need(lock >= 0 && fstat(lock, &lock_stat) == 0 && flock(lock, LOCK_EX) == 0, LOCK);
    need(fstatat(root, LOCK, &stat, AT_SYMLINK_NOFOLLOW) == 0 && same_file(&stat, &lock_stat), LOCK);

    int backups = openat(root, BACKUPS, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    need(backups >= 0, BACKUPS);
    int count = list_backups(backups, oldest);
    struct text live = read_whole(root, STATE);
    struct text mirror = read_whole(backups, MIRROR);
    errno = 0;
    need(live.length == mirror.length && memcmp(live.bytes, mirror.bytes, live.length) == 0, MIRROR);

    const char *counted = strstr(live.bytes, "\"revision\": ");
    need(counted != NULL, "revision");
    unsigned long old = strtoul(counted + strlen("\"revision\": "), NULL, 10);
    snprintf(revision, sizeof revision, "%lu", old + 1);
    struct text next = replace(replace(live, "\"phase\": \"", "\"", argv[2]), "\"revision\": ", ",\n}", revision);

    snprintf(state_tmp, sizeof state_tmp, ".commit-%lu-state.tmp", (unsigned long)lock_stat.st_ino);
    snprintf(mirror_tmp, sizeof mirror_tmp, ".commit-%lu-mirror.tmp", (unsigned long)lock_stat.st_ino);
    write_new(root, state_tmp, next, 1);
    write_new(backups, mirror_tmp, next, 0);

    struct utc utc = utc_of((long)time(NULL));
    snprintf(compact, sizeof compact, "%04d%02d%02d-%02d%02d%02d", utc.year, utc.month, utc.day, utc.hour, utc.minute,
             utc.second);
    snprintf(iso, sizeof iso, "%04d-%02d-%02dT%02d:%02d:%02dZ", utc.year, utc.month, utc.day, utc.hour, utc.minute,
             utc.second);
    snprintf(backup, sizeof backup, "state-%s-r%lu-set.json", compact, old);
    need(linkat(root, STATE, backups, backup, 0) == 0, backup);

    errno = 0;
    need(fstatat(root, LOCK, &stat, AT_SYMLINK_NOFOLLOW) == 0 && same_file(&stat, &lock_stat), LOCK);
    need(fstatat(root, STATE, &stat, AT_SYMLINK_NOFOLLOW) == 0 && unchanged(&stat, &live.stat), STATE);
    need(renameat(root, state_tmp, root, STATE) == 0, STATE);
    need(fsync(root) == 0, argv[1]);
    need(renameat2(backups, mirror_tmp, backups, MIRROR, RENAME_EXCHANGE) == 0, MIRROR);
    need(unlinkat(backups, mirror_tmp, 0) == 0, mirror_tmp);
    if (count >= KEPT)
        need(unlinkat(backups, oldest, 0) == 0, oldest);

    int journal = openat(backups, JOURNAL, APPEND_FLAGS);
    need(journal >= 0 && fstat(journal, &stat) == 0 && S_ISREG(stat.st_mode), JOURNAL);
    int length = snprintf(line, sizeof line,
                          "\n{\"v\":1,\"time\":\"%s\",\"event\":\"commit\",\"revision\":%s,\"command\":\"state set\","
                          "\"reason\":\"set\",\"pid\":%ld,\"changed\":[\"phase\"],\"phase\":\"%.80s\"}\n",
                          iso, revision, (long)getpid(), argv[2]);
    need(write(journal, line, (size_t)length) == length, JOURNAL);
    close(journal);

    const char *log = getenv("AUDIT_LOG");
    int audit = log != NULL && *log != '\0' ? open(log, APPEND_FLAGS | O_CREAT, 0600)
                                            : openat(root, ".pipeline-audit.log", APPEND_FLAGS | O_CREAT, 0600);
    need(audit >= 0 && fstat(audit, &stat) == 0 && S_ISREG(stat.st_mode), "the audit log");
    length = snprintf(line, sizeof line,
                      "%s [INFO] state-manager/set: committed revision=%s reason=set pid=%ld command=\"state set\" "
                          "bytes=%zu path=%.200s/" STATE "\n",
                          iso, revision, (long)getpid(), next.length, argv[1]);
    need(write(audit, line, (size_t)length) == length, "the audit log");
    close(audit);
    close(lock);

    length = snprintf(line, sizeof line, "State updated: revision %s\n", revision);
    need(write(STDOUT_FILENO, line, (size_t)length) == length, "standard output");
    return 0;
}
