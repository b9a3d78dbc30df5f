/*
 * main() of a test program. By itself, so that a program with a main() of its
 * own can use the rest.
 */
#include "tap.h"

int main(int argc, char **argv)
{
    return test__main(argc, argv);
}
