/*
 * handoff.c - how long after a lock became free does the command that waited for it end?
 *
 *     handoff ROUNDS PIPELINE-STATE ROOT FLOCK
 *
 * PIPELINE-STATE waits with `lock acquire`, FLOCK, flock(1), with `FILE true`. In each round both wait for a lock that is
 * given back and for one whose owner is killed with -9, in an order drawn anew. The clock (CLOCK_MONOTONIC) runs until the
 * command is reaped, from before the call that frees the lock: flock(2) or kill(2), or, where `lock release` gives it
 * back, from when inotify(7) tells that the record was replaced, which is some 40 µs late. That program's own start is not
 * meant, but its end runs beside the waiter. Before all that the command has gone to sleep.
 *
 * If SUMMARY names a file, a line for each way is appended to it: what, ours, the peer's, the ratio, the target; tabs between.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WAYS = 4 };

extern char **environ;
static const char *binary, *root, *flock_program;
static char locks_path[4096], queue_path[4096], flock_path[4096];
static int watch = -1;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1e3;
}

static pid_t start(const char *const argv[])
{
    static posix_spawn_file_actions_t actions;
    static int made;
    pid_t pid;
    if (!made++) {
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
        posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    }
    if (posix_spawn(&pid, argv[0], &actions, NULL, (char **)argv, environ) != 0)
        fail(argv[0]);
    return pid;
}

static void finish(pid_t pid)
{
    int status;
    if (waitpid(pid, &status, 0) != pid || status != 0) {
        fprintf(stderr, "handoff: a command failed (wait status %d)\n", status);
        exit(1);
    }
}

/* A process that owns a lock until it is killed; it holds flock(2) on the file if there is one. */
static pid_t owner(const char *file)
{
    int ready[2];
    char byte;
    if (pipe2(ready, O_CLOEXEC) != 0)
        fail("pipe");
    pid_t pid = fork();
    if (pid == 0) {
        if (file != NULL && flock(open(file, O_RDONLY | O_CLOEXEC), LOCK_EX) != 0)
            _exit(1);
        if (write(ready[1], "", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    if (pid < 0 || read(ready[0], &byte, 1) != 1)
        fail("owner");
    close(ready[0]);
    close(ready[1]);
    return pid;
}

static void lock(const char *what, pid_t of)
{
    char pid[16];
    snprintf(pid, sizeof pid, "%d", (int)of);
    const char *argv[] = {binary, "--root", root, "lock", what, "hand", "--owner-pid", pid, NULL};
    finish(start(argv));
}

/* Returns whether the queue of the lock has a waiter's file. */
static int is_waited_for(void)
{
    DIR *queue = opendir(queue_path);
    int found = 0;
    if (queue == NULL)
        return 0;
    for (struct dirent *entry; (entry = readdir(queue)) != NULL;)
        found |= entry->d_name[0] != '.';
    closedir(queue);
    return found;
}

/* Sleeps, for 20 ms at least, until the process does: state `S` in proc_pid_stat(5), four times in a row. */
static void sleep_until_it_sleeps(pid_t pid)
{
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    for (int asleep = 0; asleep < 4;) {
        usleep(5000);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
        if (length < 0)
            fail(path);
        close(fd);
        text[length] = '\0';
        char *name_end = strrchr(text, ')');
        asleep = name_end != NULL && name_end[2] == 'S' ? asleep + 1 : 0;
    }
}

/* Waits until the lock's record is put in place. */
static void await_record(void)
{
    static char events[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
    for (;;) {
        ssize_t length = read(watch, events, sizeof events);
        if (length <= 0)
            fail("inotify");
        for (char *at = events; at < events + length;) {
            struct inotify_event *event = (struct inotify_event *)at;
            if (event->len > 0 && strcmp(event->name, "hand.json") == 0)
                return;
            at += sizeof *event + event->len;
        }
    }
}

static double ours(int kills)
{
    pid_t holder = owner(NULL);
    lock("acquire", holder);
    const char *argv[] = {binary, "--root", root, "lock", "acquire", "hand", "60", NULL};
    pid_t waiter = start(argv);
    while (!is_waited_for())
        usleep(1000);
    sleep_until_it_sleeps(waiter);

    double began;
    pid_t releaser = 0;
    if (kills) {
        began = now();
        kill(holder, SIGKILL);
    } else {
        char pid[16];
        snprintf(pid, sizeof pid, "%d", (int)holder);
        const char *release[] = {binary, "--root", root, "lock", "release", "hand", "--owner-pid", pid, NULL};
        watch = inotify_init1(IN_CLOEXEC);
        if (watch < 0 || inotify_add_watch(watch, locks_path, IN_MOVED_TO) < 0)
            fail(locks_path);
        releaser = start(release);
        await_record();
        began = now();
    }
    finish(waiter);
    double ended = now();

    if (!kills) {
        close(watch); /* takes the kernel milliseconds, so not while the clock runs */
        finish(releaser);
    }
    kill(holder, SIGKILL);
    waitpid(holder, NULL, 0);
    lock("release", getpid());
    return ended - began;
}

static double theirs(int kills)
{
    int fd = -1;
    pid_t holder = 0;
    if (kills)
        holder = owner(flock_path);
    else if ((fd = open(flock_path, O_RDONLY | O_CLOEXEC)) < 0 || flock(fd, LOCK_EX) != 0)
        fail(flock_path);
    const char *argv[] = {flock_program, flock_path, "true", NULL};
    pid_t waiter = start(argv);
    sleep_until_it_sleeps(waiter);

    double began = now();
    if (kills)
        kill(holder, SIGKILL);
    else
        flock(fd, LOCK_UN);
    finish(waiter);
    double ended = now();

    if (kills)
        waitpid(holder, NULL, 0);
    else
        close(fd);
    return ended - began;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    static const char *names[WAYS] = {"pipeline-state, released", "flock(1), released", "pipeline-state, killed",
                                      "flock(1), killed"};
    if (argc != 5 || atoi(argv[1]) < 1) {
        fprintf(stderr, "usage: handoff ROUNDS PIPELINE-STATE ROOT FLOCK\n");
        return 64;
    }
    int rounds = atoi(argv[1]), warm_up = (rounds + 9) / 10;
    binary = argv[2], root = argv[3], flock_program = argv[4];
    snprintf(queue_path, sizeof queue_path, "%s/.locks/.queue/hand", root);
    snprintf(locks_path, sizeof locks_path, "%s/.locks", root);
    snprintf(flock_path, sizeof flock_path, "%s/flock", root);
    close(open(flock_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));

    double *times[WAYS];
    for (int way = 0; way < WAYS; way++)
        if ((times[way] = calloc((size_t)rounds, sizeof(double))) == NULL)
            fail("calloc");
    unsigned seed = (unsigned)time(NULL);
    for (int round = -warm_up; round < rounds; round++)
        for (int i = 0, first = rand_r(&seed) % WAYS; i < WAYS; i++) {
            int way = (first + i) % WAYS;
            double time = way % 2 == 0 ? ours(way / 2) : theirs(way / 2);
            if (round >= 0)
                times[way][round] = time;
        }
    printf("%-34s %8s %8s %8s %8s %8s\n", "from free to the waiter's exit, µs", "median", "q1", "q3", "min", "max");
    for (int way = 0; way < WAYS; way++) {
        qsort(times[way], (size_t)rounds, sizeof(double), ascending);
        printf("%-34s %8.0f %8.0f %8.0f %8.0f %8.0f\n", names[way], times[way][rounds / 2], times[way][rounds / 4],
               times[way][rounds * 3 / 4], times[way][0], times[way][rounds - 1]);
    }
    FILE *summary = getenv("SUMMARY") == NULL ? NULL : fopen(getenv("SUMMARY"), "a");
    for (int way = 0; summary != NULL && way < WAYS; way += 2) {
        double mine = times[way][rounds / 2], other = times[way + 1][rounds / 2];
        fprintf(summary, "hand-off, %s\t%.0f µs\t%s: %.0f µs\t%.2f\t<= 1000 µs\n", way == 0 ? "released" : "owner killed",
                mine, "flock(1)", other, mine / other);
    }
    return summary != NULL && fclose(summary) != 0;
}
