/*
 * The commands of the group `aof`: the operator's tools of the tiered log.
 */
#include "commands.h"

#define OBJECTS                                                                                    \
    (BIT(FLAG_ENDPOINT) | BIT(FLAG_BUCKET) | BIT(FLAG_REGION) | BIT(FLAG_PREFIX) | BIT(FLAG_CA))
#define RANGE (BIT(FLAG_FROM) | BIT(FLAG_TO))

const char aof_group_help[] =
    "\n"
    "DIR is a log's directory: the one with the files *.seg. What only looks takes no lock and\n"
    "changes nothing; the log may be in use. A segment is named by its generation, the number\n"
    "in the first column of `bop aof segments list`.\n"
    "\n"
    "Exit status of this group:\n"
    "  0  done, and all is good\n"
    "  1  wrong usage\n"
    "  2  no such log, segment or record\n"
    "  3  the object store refuses credentials, certificate, address or bucket\n"
    "  4  damage was found, or a file or the network failed, or the log is in use\n";

const char aof_objects_help[] =
    "The object store:\n"
    "  --endpoint URL   where it is (else BOP_TIER2_ENDPOINT)\n"
    "  --bucket NAME    in which bucket\n"
    "  --region NAME    of it (us-east-1)\n"
    "  --prefix KEY     before all keys of logs (aof)\n"
    "  --ca FILE        certificates to trust instead of the system's, PEM\n"
    "Credentials come from BOP_TIER2_ACCESS_KEY, BOP_TIER2_SECRET_KEY and BOP_TIER2_TOKEN.\n";

const struct cli_command aof_commands[] = {
    {
        .group = "aof",
        .name = "dump",
        .synopsis = "DIR",
        .summary = "print all that is known of a log",
        .help = "The log as a whole, where each segment is (local, packed, in the object store), "
                "and\nwhat its header, its footer and the manifest say. With --json one object.\n"
                "  --segment GENERATION   of this segment only\n"
                "  --records              and a line for each record: number, offset, size, tag, "
                "time\n"
                "  --from RECORD, --to RECORD   those from here, up to here\n",
        .values_min = 1,
        .values_max = 1,
        .flags = RANGE | BIT(FLAG_SEGMENT) | BIT(FLAG_RECORDS),
        .run = cmd_aof_dump,
    },
    {
        .group = "aof",
        .name = "inspect",
        .synopsis = "DIR",
        .summary = "summarize a log, without reading its records",
        .help = "From headers, footers and the manifest; of the newest segment the records. Exit\n"
                "status 4 if any of these is damaged.\n",
        .values_min = 1,
        .values_max = 1,
        .run = cmd_aof_inspect,
    },
    {
        .group = "aof",
        .name = "verify",
        .synopsis = "DIR",
        .summary = "check every record of a log",
        .help = "Reads all local segments, with footers and links from record to record, and the\n"
                "packed files of tier 1. Prints each problem with file, offset and the records it\n"
                "costs. Nothing is changed. Exit status 4 if there is any problem. A torn tail is\n"
                "none: it was never acknowledged.\n"
                "  --segment GENERATION   this segment only\n"
                "  --from RECORD, --to RECORD   segments with these records only\n"
                "  --rate BYTES           read so many a second, at most (K, M, G)\n"
                "  --objects              also every object of tier 2, against the manifest\n",
        .values_min = 1,
        .values_max = 1,
        .flags = RANGE | OBJECTS | BIT(FLAG_SEGMENT) | BIT(FLAG_RATE) | BIT(FLAG_OBJECTS),
        .run = cmd_aof_verify,
    },
    {
        .group = "aof",
        .name = "scrub",
        .synopsis = "DIR",
        .summary = "verify gently: at a rate",
        .help = "As verify, at 8 MiB a second if nothing else is said, for a machine at work.\n"
                "  --rate BYTES   a second (K, M, G)\n"
                "  --objects      also every object of tier 2, against the manifest\n",
        .values_min = 1,
        .values_max = 1,
        .flags = OBJECTS | BIT(FLAG_RATE) | BIT(FLAG_OBJECTS),
        .run = cmd_aof_scrub,
    },
    {
        .group = "aof",
        .name = "repair",
        .synopsis = "DIR",
        .summary = "make a damaged log usable again",
        .help = "What a packed file, or the object store if it is named, has is got back from\n"
                "there; a header is written anew, a bad\n"
                "footer or a torn tail is cut off. What no copy has ends the log: it and all\n"
                "behind it goes, and is told exactly. Every file that is changed is there as\n"
                "NAME.broken before. A log in use is not touched, nor is a good one.\n"
                "  --dry-run   only say what would be done\n",
        .values_min = 1,
        .values_max = 1,
        .flags = OBJECTS | BIT(FLAG_DRY_RUN),
        .run = cmd_aof_repair,
    },
    {
        .group = "aof",
        .name = "export",
        .synopsis = "DIR FILE|-",
        .summary = "write records to a file",
        .help = "One JSON object a line:\n"
                "  {\"seq\":7,\"tag\":1,\"time_us\":1700000000000000,\"payload\":\"text\"}\n"
                "with \"payload64\" and base64 where the bytes are not UTF-8. Records of lower\n"
                "tiers come from there. FILE appears only when all of it is written.\n"
                "  --from RECORD, --to RECORD   these only\n"
                "  --raw           in binary, smaller and faster\n"
                "  --skip-damage   leave out what is bad; exit status 4 all the same\n",
        .values_min = 2,
        .values_max = 2,
        .flags = RANGE | OBJECTS | BIT(FLAG_RAW) | BIT(FLAG_SKIP_DAMAGE),
        .run = cmd_aof_export,
    },
    {
        .group = "aof",
        .name = "import",
        .synopsis = "DIR FILE|-",
        .summary = "append what export wrote",
        .help = "Both forms. A log that is not there is made, and begins with the number of the\n"
                "first record. Numbers must follow those in the log. All is on disk when it ends.\n"
                "  --renumber   numbers in the file do not count\n"
                "  --resume     leave out records whose number the log has already\n"
                "  --segment-bytes BYTES   of each segment file (64M)\n",
        .values_min = 2,
        .values_max = 2,
        .flags = BIT(FLAG_RENUMBER) | BIT(FLAG_RESUME) | BIT(FLAG_SEGMENT_BYTES),
        .run = cmd_aof_import,
    },
    {
        .group = "aof",
        .name = "seal",
        .synopsis = "DIR",
        .summary = "close the segment that takes appends",
        .help =
            "The next append begins another one. Before an upgrade, or to have all of a log go\n"
            "to the object store (then flush). The log must not be in use: its owner calls\n"
            "bop_aof_seal() itself.\n"
            "  --name NAME   the log's in the object store (its id)\n",
        .values_min = 1,
        .values_max = 1,
        .flags = OBJECTS | BIT(FLAG_NAME),
        .run = cmd_aof_seal,
    },
    {
        .group = "aof",
        .name = "flush",
        .synopsis = "DIR",
        .summary = "have everything pack and upload now, and wait",
        .help =
            "Sealed segments are packed, and uploaded if an object store is named. The log must\n"
            "not be in use.\n"
            "  --timeout SECONDS   give up after so long (600)\n"
            "  --name NAME         the log's in the object store (its id)\n",
        .values_min = 1,
        .values_max = 1,
        .flags = OBJECTS | BIT(FLAG_NAME),
        .run = cmd_aof_flush,
    },
    {
        .group = "aof",
        .name = "hydrate",
        .synopsis = "DIR",
        .summary = "fetch segments from the object store",
        .help = "Into packed files of tier 1, all that are not local, or\n"
                "  --segment GENERATION         this one\n"
                "  --from RECORD, --to RECORD   those with these records\n"
                "  --timeout SECONDS            give up after so long (600)\n"
                "  --name NAME                  the log's in the object store (its id)\n"
                "The log must not be in use.\n",
        .values_min = 1,
        .values_max = 1,
        .flags = OBJECTS | RANGE | BIT(FLAG_SEGMENT) | BIT(FLAG_NAME),
        .run = cmd_aof_hydrate,
    },
    {
        .group = "aof",
        .name = "segments list",
        .synopsis = "DIR",
        .summary = "list segments and where they are",
        .help = "  --tier 0|1|2   those that are there\n",
        .values_min = 1,
        .values_max = 1,
        .flags = BIT(FLAG_TIER),
        .run = cmd_aof_segments_list,
    },
    {
        .group = "aof",
        .name = "segments delete",
        .synopsis = "DIR",
        .summary = "give up old records, or local copies",
        .help =
            "  --segment GENERATION --force   records up to this segment's last are lost, in all\n"
            "                                 tiers\n"
            "  --tier 0|1   all files of this tier go that the next tier has, verified\n"
            "  --name NAME  the log's in the object store (its id)\n"
            "The log must not be in use.\n",
        .values_min = 1,
        .values_max = 1,
        .flags = OBJECTS | BIT(FLAG_SEGMENT) | BIT(FLAG_TIER) | BIT(FLAG_FORCE) | BIT(FLAG_NAME),
        .run = cmd_aof_segments_delete,
    },
    {
        .group = "aof",
        .name = "restore",
        .synopsis = "DIR",
        .summary = "make a log anew from the object store alone",
        .help =
            "DIR must not exist, or be empty. The manifest is fetched; segments stay where they\n"
            "are until they are read (or hydrated).\n"
            "  --name NAME   the log's in the object store; required\n",
        .values_min = 1,
        .values_max = 1,
        .flags = OBJECTS | BIT(FLAG_NAME),
        .run = cmd_aof_restore,
    },
    {
        .group = "aof",
        .name = "bench",
        .synopsis = "DIR",
        .summary = "measure the log on this disk",
        .help = "Writes a log to DIR, which must not exist, one durable commit after the other,\n"
                "reads it back, and removes it.\n"
                "  --entries N       records (100000)\n"
                "  --size BYTES      of each (128)\n"
                "  --batch RECORDS   in a commit (512)\n"
                "  --segment-bytes BYTES   of each segment file (64M)\n"
                "  --keep            leave the log there\n",
        .values_min = 1,
        .values_max = 1,
        .flags = BIT(FLAG_ENTRIES) | BIT(FLAG_SIZE) | BIT(FLAG_BATCH) | BIT(FLAG_SEGMENT_BYTES) |
                 BIT(FLAG_KEEP),
        .run = cmd_aof_bench,
    },
    {
        .group = "aof",
        .name = "manifest check",
        .synopsis = "DIR",
        .summary = "check the manifest of a log with tiers",
        .help =
            "Each chunk with its records and checksums. Exit status 4 if it would not open.\n"
            "  --events   print every record\n"
            "  --repair   put a chunk that cannot be read aside as NAME.broken, and go on with\n"
            "             the one before it; the log must not be in use\n",
        .values_min = 1,
        .values_max = 1,
        .flags = BIT(FLAG_EVENTS) | BIT(FLAG_REPAIR),
        .run = cmd_aof_manifest_check,
    },
};

const size_t aof_command_count = BOP_COUNT_OF(aof_commands);
