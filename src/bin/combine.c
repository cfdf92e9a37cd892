#include "postgres_fe.h"
#include "commands.h"
int combine_main(int argc, char **argv) { return 1; }
