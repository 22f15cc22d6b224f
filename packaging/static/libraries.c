/* A static program has no dynamic linker. ctypes finds in it the functions of the C library that minprov calls, and no
 * library beside: loading libcrypt or libcrypto fails as on a system that has none. These take the place of musl's,
 * which fail always. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>

static const struct {
    const char *name;
    void *address;
} functions[] = {
    {"mount", mount},
    {"umount2", umount2},
    {"unshare", unshare},
};

static const char *failure;

static void *
fail(const char *reason)
{
    failure = reason;
    return NULL;
}

void *
dlopen(const char *file, int mode)
{
    return file ? fail("a static program loads no libraries") : (void *)functions;
}

void *
dlsym(void *restrict library, const char *restrict name)
{
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        if (strcmp(name, functions[i].name) == 0) {
            return functions[i].address;
        }
    }
    return fail("not among the functions that this program has");
}

int
dlclose(void *library)
{
    return 0;
}

char *
dlerror(void)
{
    char *reason = (char *)failure;
    failure = NULL;
    return reason;
}
