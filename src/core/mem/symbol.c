/*
 * Names of code addresses: dladdr() knows exported functions alone, so the
 * symbol table of the module's file is asked first.
 *
 * The file may have been replaced since it was loaded: nothing in it is trusted
 * to lie inside it.
 */
#include "symbol.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <inttypes.h>
#include <link.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* `count` items of `size` bytes at `offset` of the file, or NULL. */
static const void *part_of(const struct bop__symbol_module *module, uint64_t offset, uint64_t count,
                           size_t size)
{
    uint64_t bytes;

    if (__builtin_mul_overflow(count, size, &bytes) || offset > module->file_size ||
        bytes > module->file_size - offset || offset % 8 != 0) {
        return NULL;
    }
    return module->file + offset;
}

static void map_file(struct bop__symbol_module *module, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat about;
    void *file;

    if (fd < 0) {
        return;
    }
    if (fstat(fd, &about) == 0 && about.st_size > 0) {
        file = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (file != MAP_FAILED) {
            module->file = file;
            module->file_size = (size_t)about.st_size;
        }
    }
    close(fd);
}

static void find_symbols(struct bop__symbol_module *module)
{
    const Elf64_Ehdr *head = part_of(module, 0, 1, sizeof(*head));
    const Elf64_Shdr *sections;

    if (!head || memcmp(head->e_ident, ELFMAG, SELFMAG) != 0 ||
        head->e_ident[EI_CLASS] != ELFCLASS64 || head->e_shentsize != sizeof(*sections)) {
        return;
    }
    sections = part_of(module, head->e_shoff, head->e_shnum, sizeof(*sections));
    for (unsigned i = 0; sections && i < head->e_shnum; i++) {
        const Elf64_Shdr *table = &sections[i];
        const Elf64_Shdr *names;

        if (table->sh_type != SHT_SYMTAB || table->sh_link >= head->e_shnum) {
            continue;
        }
        names = &sections[table->sh_link];
        /* Names need no alignment, so their part may start anywhere. */
        if (names->sh_offset > module->file_size ||
            names->sh_size > module->file_size - names->sh_offset) {
            continue;
        }
        module->names = (const char *)module->file + names->sh_offset;
        module->names_size = names->sh_size;
        module->symbol_count = table->sh_size / sizeof(Elf64_Sym);
        module->symbols = part_of(module, table->sh_offset, module->symbol_count,
                                  sizeof(Elf64_Sym));
    }
}

/* NULL beyond the bound. */
static const struct bop__symbol_module *module_of(struct bop__symbols *symbols,
                                                  const struct link_map *map)
{
    struct bop__symbol_module *module;

    for (size_t i = 0; i < symbols->module_count; i++) {
        if (symbols->modules[i].bias == map->l_addr) {
            return &symbols->modules[i];
        }
    }
    if (symbols->module_count == BOP__SYMBOL_MODULES_MAX) {
        return NULL;
    }
    module = &symbols->modules[symbols->module_count++];
    *module = (struct bop__symbol_module){.bias = map->l_addr};
    map_file(module, map->l_name[0] ? map->l_name : "/proc/self/exe");
    find_symbols(module);
    return module;
}

/* The name of the function of the file that `address` lies in, or NULL. */
static const char *file_symbol(const struct bop__symbol_module *module, uintptr_t address,
                               uintptr_t *out_offset)
{
    uint64_t wanted = address - module->bias;

    for (size_t i = 0; module->symbols && i < module->symbol_count; i++) {
        const Elf64_Sym *symbol = &module->symbols[i];

        if (ELF64_ST_TYPE(symbol->st_info) == STT_FUNC && wanted >= symbol->st_value &&
            wanted - symbol->st_value < symbol->st_size && symbol->st_name < module->names_size &&
            memchr(module->names + symbol->st_name, 0, module->names_size - symbol->st_name)) {
            *out_offset = wanted - symbol->st_value;
            return module->names + symbol->st_name;
        }
    }
    return NULL;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

void bop__symbol_write(struct bop__symbols *symbols, FILE *out, uintptr_t return_address)
{
    /* The call is before the address it returns to, which may be another function's already. */
    uintptr_t address = return_address - 1;
    const struct bop__symbol_module *module;
    struct link_map *map = NULL;
    const char *name = NULL;
    uintptr_t offset = 0;
    Dl_info info;

    if (!dladdr1((const void *)address, &info, (void **)&map, RTLD_DL_LINKMAP) || !map) {
        fprintf(out, "0x%" PRIxPTR, return_address);
        return;
    }
    module = module_of(symbols, map);
    if (module) {
        name = file_symbol(module, address, &offset);
    }
    if (!name && info.dli_sname) {
        name = info.dli_sname;
        offset = address - (uintptr_t)info.dli_saddr;
    }
    if (name) {
        fprintf(out, "%s+0x%" PRIxPTR " (%s)", name, offset + 1, base_name(info.dli_fname));
    } else {
        fprintf(out, "0x%" PRIxPTR " (%s+0x%" PRIxPTR ")", return_address,
                base_name(info.dli_fname), return_address - map->l_addr);
    }
}

void bop__symbols_deinit(struct bop__symbols *symbols)
{
    for (size_t i = 0; i < symbols->module_count; i++) {
        if (symbols->modules[i].file) {
            munmap((void *)(uintptr_t)symbols->modules[i].file, symbols->modules[i].file_size);
        }
    }
    symbols->module_count = 0;
}
