/*
 * crowd.c - many processes that want the same thing at once.
 *
 *     crowd PROCESSES TURNS REPEATS WHAT RATE TAIL MINE PEER COMMAND [ARG…] -- COMMAND [ARG…]
 *
 * PROCESSES scripts run COMMAND (what follows an ARG that is `;` is another, run after it; both count as one) TURNS times
 * each, all begun at once: first those of MINE, then those of PEER, REPEATS times over. For both it prints how many turns
 * were done in a second (the median of the repeats), the median, 99th percentile and maximum of a turn's time over all
 * repeats, how much later than the script in the middle the last one had done all its turns, and the processor time of a
 * turn, in which waiting shows if it costs any. Each script is a process of its own, so it owns the locks that it takes. Input,
 * output and what is said while waiting are /dev/null. Ends with 1 if a command failed.
 *
 * If SUMMARY names a file, lines about WHAT are appended to it: what, ours, the peer's, the ratio, the target; tabs between.
 * RATE is the part of the peer's throughput that is the target, TAIL the most that p99 may be of the median; `-` for none.
 * If CURVES names a file, so is a line for its plot: processes, ours, the peer's, WHAT.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_REPEATS = 101, MAX_PROCESSES = 4096 };

struct side {
    const char *name;
    char **argv;
    double rates[MAX_REPEATS], lags[MAX_REPEATS];
    double *turns; /* of all repeats */
    double cpu;
    double rate, median, p99, max, lag;
};

/* What the scripts of one repeat report. */
struct reports {
    double ended[MAX_PROCESSES], cpu[MAX_PROCESSES];
    int failed;
};

extern char **environ;

static void fail(const char *what)
{
    perror(what);
    exit(2);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static double seconds(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(double *values, int count, double part)
{
    qsort(values, (size_t)count, sizeof(double), ascending);
    return values[(int)(part * (count - 1))];
}

static void *shared(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        fail("mmap");
    return memory;
}

/* One turn; whether all of it succeeded. */
static int take_turn(char **argv, posix_spawn_file_actions_t *actions)
{
    int fine = 1;
    while (*argv != NULL) {
        char *one[64];
        int count = 0, status;
        pid_t pid;
        for (; *argv != NULL && strcmp(*argv, ";") != 0; argv++)
            if (count < 63)
                one[count++] = *argv;
        one[count] = NULL;
        if (posix_spawn(&pid, one[0], actions, NULL, one, environ) != 0 || waitpid(pid, &status, 0) != pid)
            return 0;
        fine &= status == 0;
        argv += *argv != NULL;
    }
    return fine;
}

static void repeat(struct side *side, int index, int processes, int turns, posix_spawn_file_actions_t *actions)
{
    struct reports *reports = shared(sizeof *reports);
    double *times = side->turns + (size_t)index * (size_t)processes * (size_t)turns;
    int gate[2];
    if (pipe2(gate, O_CLOEXEC) != 0)
        fail("pipe");
    for (int script = 0; script < processes; script++) {
        pid_t pid = fork();
        if (pid < 0)
            fail("fork");
        if (pid > 0)
            continue;
        char byte;
        struct rusage usage;
        close(gate[1]);
        if (read(gate[0], &byte, 1) != 0) /* it ends for all at once */
            _exit(2);
        for (int turn = 0; turn < turns; turn++) {
            double began = now();
            if (!take_turn(side->argv, actions))
                __atomic_fetch_add(&reports->failed, 1, __ATOMIC_RELAXED);
            times[script * turns + turn] = now() - began;
        }
        reports->ended[script] = now();
        getrusage(RUSAGE_CHILDREN, &usage);
        reports->cpu[script] = seconds(usage.ru_utime) + seconds(usage.ru_stime);
        _exit(0);
    }
    usleep(20000); /* so that all stand at the gate */
    double began = now();
    close(gate[1]);
    close(gate[0]);
    for (int script = 0; script < processes; script++)
        if (wait(NULL) < 0)
            fail("wait");
    if (reports->failed > 0) {
        fprintf(stderr, "crowd: %s failed %d times\n", side->name, reports->failed);
        exit(1);
    }
    double last = 0;
    for (int script = 0; script < processes; script++) {
        reports->ended[script] -= began;
        side->cpu += reports->cpu[script];
        last = reports->ended[script] > last ? reports->ended[script] : last;
    }
    side->rates[index] = processes * turns / last;
    side->lags[index] = last / quantile(reports->ended, processes, 0.5);
    munmap(reports, sizeof *reports);
}

int main(int argc, char **argv)
{
    static struct side sides[2];
    int processes = argc > 10 ? atoi(argv[1]) : 0, turns = argc > 10 ? atoi(argv[2]) : 0;
    int repeats = argc > 10 ? atoi(argv[3]) : 0;
    if (processes < 1 || processes > MAX_PROCESSES || turns < 1 || repeats < 1 || repeats > MAX_REPEATS) {
        fprintf(stderr, "usage: crowd PROCESSES TURNS REPEATS WHAT RATE TAIL MINE PEER COMMAND [ARG...] -- COMMAND [ARG...]\n");
        return 64;
    }
    const char *what = argv[4];
    int total = processes * turns * repeats, middle = 9;
    while (middle < argc && strcmp(argv[middle], "--") != 0)
        middle++;
    argv[middle < argc ? middle : argc] = NULL;
    sides[0].name = argv[7], sides[0].argv = &argv[9];
    sides[1].name = argv[8], sides[1].argv = middle < argc ? &argv[middle + 1] : NULL;
    if (sides[1].argv == NULL || *sides[1].argv == NULL || *sides[0].argv == NULL)
        return 64;

    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    for (int side = 0; side < 2; side++)
        sides[side].turns = shared((size_t)total * sizeof(double));
    for (int index = 0; index < repeats; index++)
        for (int side = 0; side < 2; side++)
            repeat(&sides[side], index, processes, turns, &actions);

    printf("%-44s %8s %9s %9s %9s %10s %9s %9s\n", what, "turns/s", "median ms", "p99 ms", "max ms", "p99/median", "last/mid",
           "cpu ms");
    for (int index = 0; index < 2; index++) {
        struct side *side = &sides[index];
        side->rate = quantile(side->rates, repeats, 0.5);
        side->lag = quantile(side->lags, repeats, 0.5);
        side->median = quantile(side->turns, total, 0.5) * 1e3;
        side->p99 = quantile(side->turns, total, 0.99) * 1e3;
        side->max = side->turns[total - 1] * 1e3;
        side->cpu = side->cpu * 1e3 / total;
        printf("%-44s %8.0f %9.2f %9.2f %9.2f %10.2f %9.2f %9.2f\n", side->name, side->rate, side->median, side->p99, side->max,
               side->p99 / side->median, side->lag, side->cpu);
    }
    FILE *summary = getenv("SUMMARY") == NULL ? NULL : fopen(getenv("SUMMARY"), "a");
    if (summary == NULL)
        return 0;
    const struct side *mine = &sides[0], *peer = &sides[1];
    fprintf(summary, "%s\t%.0f/s\t%s: %.0f/s\t%.2f\t%s\n", what, mine->rate, peer->name, peer->rate, mine->rate / peer->rate,
            argv[5]);
    fprintf(summary, "- p99 over median (maximum)\t%.1f ms (%.1f ms)\tits median: %.1f ms\t%.2f\t%s\n", mine->p99, mine->max,
            mine->median, mine->p99 / mine->median, argv[6]);
    fprintf(summary, "- last script over the median one\t%.2f\t%s: %.2f\t%.2f\t-\n", mine->lag, peer->name, peer->lag,
            mine->lag / peer->lag);
    fprintf(summary, "- processor time of a turn\t%.2f ms\t%s: %.2f ms\t%.2f\t-\n", mine->cpu, peer->name, peer->cpu,
            mine->cpu / peer->cpu);
    FILE *curves = getenv("CURVES") == NULL ? NULL : fopen(getenv("CURVES"), "a");
    if (curves != NULL) {
        fprintf(curves, "%d\t%.1f\t%.1f\t%.3f\t%.3f\t%s\t%s\n", processes, mine->rate, peer->rate, mine->cpu, peer->cpu,
                mine->name, peer->name);
        fclose(curves);
    }
    return fclose(summary) != 0;
}
