// SPDX-License-Identifier: Apache-2.0
// os-release(5) is untrusted text: it is read, never executed, and a value that is not a plain word counts as missing.
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include "machine.h"

// Letters, digits and the punctuation in kernel names; not a dot first, which could lead out of a directory.
static bool is_plain(const char *text)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._+~-";

	return *text && *text != '.' && !text[strspn(text, allowed)];
}

static void copy_plain(char *to, size_t size, const char *text)
{
	if (is_plain(text) && strlen(text) < size)
		strcpy(to, text);
	else
		*to = '\0';
}

// The value in a line NAME=VALUE without its quotes, or NULL if the line assigns another name. Modifies the line.
static char *value_of(char *line, const char *name)
{
	const size_t length = strlen(name);
	char *value = line + length;

	if (strncmp(line, name, length) || *value++ != '=')
		return NULL;
	value[strcspn(value, " \t\r\n")] = '\0';
	if (*value == '"' || *value == '\'') {
		const char quote = *value++;
		char *end = strrchr(value, quote);

		if (!end || end[1])
			return NULL;
		*end = '\0';
	}
	return value;
}

static void read_os_release(struct machine *machine)
{
	char line[512], codename[sizeof(machine->version)] = "";
	FILE *file = fopen("/etc/os-release", "re");

	if (!file)
		file = fopen("/usr/lib/os-release", "re");
	while (file && fgets(line, sizeof(line), file)) {
		const char *value;

		if ((value = value_of(line, "ID")))
			copy_plain(machine->distro, sizeof(machine->distro), value);
		else if ((value = value_of(line, "VERSION_ID")))
			copy_plain(machine->version, sizeof(machine->version), value);
		else if ((value = value_of(line, "VERSION_CODENAME")))
			copy_plain(codename, sizeof(codename), value);
	}
	if (file)
		fclose(file);
	if (!*machine->version)
		strcpy(machine->version, *codename ? codename : "rolling");
}

// A note has three words in the machine's byte order (size of the name, size of the description, type), then name and
// description, each padded to four bytes. The build-id is the GNU note of type 3.
static void read_build_id(struct machine *machine)
{
	unsigned char notes[4096];
	FILE *file = fopen("/sys/kernel/notes", "re");
	const size_t size = file ? fread(notes, 1, sizeof(notes), file) : 0;
	struct {
		uint32_t name, description, type;
	} head;

	for (size_t at = 0; at + sizeof(head) <= size;) {
		size_t description;

		memcpy(&head, notes + at, sizeof(head));
		if (head.name > size || head.description > size)
			break;
		description = at + sizeof(head) + (head.name + 3) / 4 * 4;
		at = description + (head.description + 3) / 4 * 4;
		if (at > size || head.type != 3 || head.name != 4 || memcmp(notes + description - 4, "GNU", 4))
			continue;
		if (head.description < sizeof(machine->build_id) / 2 + 1)
			for (uint32_t i = 0; i < head.description; i++)
				sprintf(machine->build_id + 2 * i, "%02x", notes[description + i]);
		break;
	}
	if (file)
		fclose(file);
}

void machine_read(struct machine *machine)
{
	struct utsname names;

	memset(machine, 0, sizeof(*machine));
	if (!uname(&names)) {
		copy_plain(machine->arch, sizeof(machine->arch), names.machine);
		copy_plain(machine->release, sizeof(machine->release), names.release);
	}
	read_os_release(machine);
	read_build_id(machine);
}
