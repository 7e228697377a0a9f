/*
 * race.c - runs commands against each other, whole processes, and says how long each takes.
 *
 *     race ROUNDS [-- NAME BASE LIMIT COMMAND [ARG…]]…
 *
 * Every round runs every command once, in an order drawn anew, so that what else the machine does hits all of them
 * alike. The clock (CLOCK_MONOTONIC) runs from before the spawn until the process is reaped. Input and output are
 * /dev/null. COMMAND is a path; nothing is searched for. A `@` in an ARG becomes the number of the round. An ARG that is
 * `;` ends a command; what follows is another that is run after it, and both are timed together. BASE is the
 * NAME of the command that this one is measured against and LIMIT the ratio of the medians it is to keep below, both
 * for display; `-` is none. ARGs of the form NAME=VALUE before the COMMAND are put into its environment. The first tenth of the rounds warms the caches up and is not counted. The column cpu is the
 * median of user and system time, which other processes disturb less, and MiB the largest memory of any run. Ends with 1
 * if a command failed. If SUMMARY names a file, a line for each command that has a BASE is appended to it: NAME, time, BASE
 * and its time, ratio, LIMIT; tabs between.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_COMMANDS = 32, MAX_ARGS = 32, MAX_ARG = 4096 };

struct command {
    char *name, *base, *limit;
    char **argv; /* as given, ended by NULL */
    double *wall, *cpu;
    long memory; /* KiB */
    int failed;
};

extern char **environ;
static char room[MAX_ARGS][MAX_ARG];

static void fail(const char *what)
{
    fprintf(stderr, "race: %s\n", what);
    exit(2);
}

/* The arguments with `@` replaced; the command's own path stays as it is. */
static char **fill_in(char **argv, int round)
{
    static char *filled[MAX_ARGS + 1];
    int i = 0;
    for (; argv[i] != NULL; i++) {
        size_t length = 0;
        for (const char *c = argv[i]; *c != '\0'; c++) {
            if (length + 16 > MAX_ARG)
                fail("an argument is too long");
            if (*c == '@' && i > 0)
                length += (size_t)sprintf(room[i] + length, "%d", round);
            else
                room[i][length++] = *c;
        }
        room[i][length] = '\0';
        filled[i] = room[i];
    }
    filled[i] = NULL;
    return filled;
}

static double microseconds(struct timeval time)
{
    return (double)time.tv_sec * 1e6 + (double)time.tv_usec;
}

static void run(struct command *command, int round, int slot, posix_spawn_file_actions_t *actions)
{
    struct timespec start, end;
    struct rusage usage;
    int status, failed = 0;
    double cpu = 0;
    pid_t pid;
    char **argv = fill_in(command->argv, round);

    clock_gettime(CLOCK_MONOTONIC, &start);
    while (*argv != NULL) {
        char **next = argv;
        while (*next != NULL && strcmp(*next, ";") != 0)
            next++;
        char **rest = *next == NULL ? next : next + 1;
        *next = NULL;
        char **variables = argv;
        for (; *argv != NULL && strchr(*argv, '=') != NULL && strcspn(*argv, "=") < strcspn(*argv, "/"); argv++)
            putenv(*argv);
        if (posix_spawn(&pid, argv[0], actions, NULL, argv, environ) != 0)
            fail(argv[0]);
        if (wait4(pid, &status, 0, &usage) != pid)
            fail("wait4");
        failed |= status != 0;
        if (usage.ru_maxrss > command->memory)
            command->memory = usage.ru_maxrss;
        for (; variables < argv; variables++) {
            char name[MAX_ARG];
            snprintf(name, sizeof name, "%.*s", (int)strcspn(*variables, "="), *variables);
            unsetenv(name);
        }
        cpu += microseconds(usage.ru_utime) + microseconds(usage.ru_stime);
        argv = rest;
    }
    clock_gettime(CLOCK_MONOTONIC, &end);

    command->failed += failed;
    if (slot >= 0) {
        command->wall[slot] = (double)(end.tv_sec - start.tv_sec) * 1e6 + (double)(end.tv_nsec - start.tv_nsec) / 1e3;
        command->cpu[slot] = cpu;
    }
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of sorted values, the one below which `part` of them lie. */
static double quantile(const double *values, int count, double part)
{
    double place = part * (count - 1);
    int below = (int)place;
    int above = below + 1 < count ? below + 1 : below;
    return values[below] + (values[above] - values[below]) * (place - below);
}

static const struct command *find(const struct command *commands, int count, const char *name)
{
    for (int i = 0; i < count; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static int report(struct command *commands, int count, int rounds)
{
    int failures = 0;
    for (int i = 0; i < count; i++) {
        qsort(commands[i].wall, (size_t)rounds, sizeof(double), ascending);
        qsort(commands[i].cpu, (size_t)rounds, sizeof(double), ascending);
    }
    FILE *summary = getenv("SUMMARY") == NULL ? NULL : fopen(getenv("SUMMARY"), "a");
    printf("%-34s %8s %8s %8s %8s %8s %6s %6s  %-26s %s\n", "whole process, µs", "median", "q1", "q3", "min", "cpu", "MiB",
           "ratio", "against", "target");
    for (int i = 0; i < count; i++) {
        const struct command *it = &commands[i];
        const struct command *base = find(commands, count, it->base);
        double median = quantile(it->wall, rounds, 0.5);
        printf("%-34s %8.0f %8.0f %8.0f %8.0f %8.0f %6.1f ", it->name, median, quantile(it->wall, rounds, 0.25),
               quantile(it->wall, rounds, 0.75), it->wall[0], quantile(it->cpu, rounds, 0.5), (double)it->memory / 1024);
        if (base != NULL) {
            const char *least = strcmp(it->limit, "-") == 0 ? "" : "<= ";
            double other = quantile(base->wall, rounds, 0.5);
            printf("%6.2f  %-26s %s%s\n", median / other, base->name, least, it->limit);
            if (summary != NULL)
                fprintf(summary, "%s\t%.0f µs\t%s: %.0f µs\t%.2f\t%s%s\n", it->name, median, base->name, other, median / other,
                        least, it->limit);
        } else {
            printf("%6s  %-26s %s\n", "-", "-", "-");
        }
        if (it->failed > 0) {
            fprintf(stderr, "race: %s failed %d times\n", it->name, it->failed);
            failures++;
        }
    }
    return failures + (summary != NULL && fclose(summary) != 0);
}

int main(int argc, char **argv)
{
    static struct command commands[MAX_COMMANDS];
    int count = 0, order[MAX_COMMANDS];
    int rounds = argc > 1 ? atoi(argv[1]) : 0;

    if (rounds < 1 || argc < 3 || strcmp(argv[2], "--") != 0) {
        fprintf(stderr, "usage: race ROUNDS [-- NAME BASE LIMIT COMMAND [ARG...]]...\n");
        return 64;
    }
    for (int i = 2; i < argc;) {
        if (i + 4 >= argc || count == MAX_COMMANDS)
            fail("a command is incomplete, or there are too many");
        struct command *command = &commands[count++];
        command->name = argv[i + 1];
        command->base = argv[i + 2];
        command->limit = argv[i + 3];
        command->argv = &argv[i + 4];
        command->wall = calloc((size_t)rounds, sizeof(double));
        command->cpu = calloc((size_t)rounds, sizeof(double));
        if (command->wall == NULL || command->cpu == NULL)
            fail("out of memory");
        argv[i] = NULL; /* ends the arguments of the command before */
        for (i += 4; i < argc && strcmp(argv[i], "--") != 0; i++)
            if (&argv[i] - command->argv >= MAX_ARGS)
                fail("too many arguments");
    }

    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);

    unsigned seed = (unsigned)time(NULL);
    int warm_up = (rounds + 9) / 10;
    for (int i = 0; i < count; i++)
        order[i] = i;
    for (int round = 1; round <= warm_up + rounds; round++) {
        for (int i = count - 1; i > 0; i--) {
            int j = rand_r(&seed) % (i + 1), other = order[j];
            order[j] = order[i];
            order[i] = other;
        }
        for (int i = 0; i < count; i++)
            run(&commands[order[i]], round, round - warm_up - 1, &actions);
    }
    posix_spawn_file_actions_destroy(&actions);
    return report(commands, count, rounds) > 0;
}
