/* Tests mergeBtf against pahole, which deduplicates the same modules compiled into one, and with hand-made graphs. */
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import {
  type Btf,
  type BtfType,
  encodeBtf,
  mergeBtf,
  openObject,
  parseBtf,
  relocate,
} from '../../bpf/index.ts'
import { renumbered } from '../../bpf/renumber.ts'
import { compile } from '../helpers/compile.ts'
import { coreObjects, littleKernels } from '../helpers/core.ts'
import { bpftoolDump, dump, fixture, fixtureFolder } from '../helpers/fixtures.ts'
import { differences } from './oracle/agreement.ts'
import { compareGraphs, type DumpedType, dumpTypes } from './oracle/bpftool.ts'
import { buildRelocate, relocateWithLibbpf } from './oracle/libbpf.ts'

const BASE = join(fixtureFolder, 'types-x86_64.btf')
const base = parseBtf(fixture('types-x86_64.btf'))

/** Two modules with shared and own types, declarations of each other's types, and one differing type. */
const SHARED = `
  struct list { struct list *next, *prev; };
  struct leaf;
  struct tree { struct list list; struct tree *left, *right; const struct leaf *leaf; };
  enum mode { READ, WRITE = 3 };
  typedef unsigned int u32;
  typedef int (*visit_t)(struct tree *, enum mode, u32 (*)[4]);
  static __attribute__((noinline)) int walk(struct tree *tree, visit_t visit) {
    return visit(tree, WRITE, 0) + (tree->left != tree->right);
  }
`
const MODULES = {
  first: `${SHARED}
    struct pong;
    struct ping { struct pong *pong; int count; };
    struct variant { int a; };
    struct forward;
    int first(struct tree *tree, visit_t visit, struct ping *ping, struct variant *variant, struct forward *forward) {
      return walk(tree, visit) + ping->count + variant->a + (forward != 0);
    }`,
  second: `${SHARED}
    struct leaf { u32 weight : 3; struct tree *parent; };
    struct ping;
    struct pong { struct ping *ping; struct leaf leaf; };
    struct variant { long a; };
    int second(struct tree *tree, visit_t visit, struct pong *pong, struct variant *variant) {
      return walk(tree, visit) + pong->leaf.weight + variant->a;
    }`,
}

/** Compiles C for x86-64; returns the object's path. */
function compileModule(folder: string, name: string, source: string): string {
  const object = join(folder, `${name}.o`)
  compile(source, 'x86_64-linux-gnu', '-g', '-O2', '-ffreestanding', '-fno-pic', '-c', '-o', object)
  return object
}

/** Makes split BTF of an object over a base with pahole; returns the path. */
function splitOf(object: string, over = BASE): string {
  const split = object.replace(/\.o$/, '.btf')
  execFileSync('pahole', [`--btf_base=${over}`, `--btf_encode_detached=${split}`, object])
  return split
}

/** The types of split BTF and its base, read by bpftool. */
async function dumpSplit(split: string, over = BASE): Promise<DumpedType[]> {
  const command = ['-B', over, '--json', 'btf', 'dump', 'file', split]
  const own: DumpedType[] = JSON.parse(execFileSync('bpftool', command, { encoding: 'utf8' })).types
  return [...(await dumpTypes(over)), ...own]
}

function merged(folder: string, modules: readonly Btf[], over = base): { btf: Btf; path: string } {
  const path = join(folder, 'merged.btf')
  writeFileSync(path, mergeBtf(over, modules))
  return { btf: parseBtf(readFileSync(path)), path }
}

t.test(
  'merging one module gives the base unchanged, then the graph that bpftool reads of both',
  async (t) => {
    const module = parseBtf(fixture('module-x86_64.btf'), { base })
    const { btf, path } = merged(t.testdir(), [module, module])
    t.same(
      compareGraphs(
        await dumpSplit(join(fixtureFolder, 'module-x86_64.btf')),
        await dumpTypes(path),
      ),
      [],
    )
    t.equal(dump(btf), dump(base) + dump(module), 'the ids are equal too if nothing is duplicate')
    t.equal(bpftoolDump(path), dump(btf))
    t.ok(Buffer.from(base.strings).equals(btf.strings.subarray(0, base.strings.length)))
    t.ok(
      fixture('types-x86_64.btf').equals(mergeBtf(base, [])),
      'merging no module gives the base itself',
    )
  },
)

t.test(
  'merging two modules gives the graph that pahole makes of both compiled into one',
  async (t) => {
    const folder = t.testdir()
    const objects = Object.entries(MODULES).map(([name, source]) =>
      compileModule(folder, name, source),
    )
    const both = join(folder, 'both.o')
    execFileSync('ld.lld', ['-r', ...objects, '-o', both])
    const theirs = await dumpSplit(splitOf(both))
    const modules = objects.map((object) => parseBtf(readFileSync(splitOf(object)), { base }))
    for (const order of [modules, modules.toReversed()]) {
      const { btf, path } = merged(folder, order)
      t.same(compareGraphs(theirs, await dumpTypes(path)), [])
      const named = (name: string) => [...btf.types()].filter((type) => type.name === name)
      t.equal(named('tree').length, 1, 'a struct in a cycle occurs once')
      t.same(
        named('leaf').map(({ kind }) => kind),
        ['STRUCT'],
        'and what one only declares is resolved',
      )
      t.same(
        named('ping').map(({ kind }) => kind),
        ['STRUCT'],
        'in both directions',
      )
      t.equal(named('variant').length, 2, 'differing structs of one name stay')
      t.equal(named('forward').length, 1, 'a declaration that the base has is not repeated')
    }
    const [first, second] = modules
    t.ok(first?.find('leaf', 'FWD') && first.find('pong', 'FWD') && second?.find('ping', 'FWD'))
  },
)

t.test('big-endian modules merge to the same graph', (t) => {
  const swap = (btf: Btf, over?: Btf) =>
    parseBtf(encodeBtf(btf.types(), { byteOrder: 'big', ...(over && { base: over }) }), {
      ...(over && { base: over }),
    })
  const folder = t.testdir()
  const modules = Object.entries(MODULES).map(([name, source]) =>
    parseBtf(readFileSync(splitOf(compileModule(folder, name, source))), { base }),
  )
  const big = swap(base)
  const { btf, path } = merged(
    folder,
    modules.map((module) => swap(module, big)),
    big,
  )
  t.equal(btf.byteOrder, 'big')
  t.equal(dump(btf), dump(merged(t.testdir(), modules).btf))
  t.equal(bpftoolDump(path), dump(btf))
  t.throws(() => mergeBtf(base, [swap(modules[0]!, big)]), { code: 'unsupported' })
  t.throws(() => mergeBtf(modules[0]!, []), { code: 'unsupported' })
  t.end()
})

/** A program with types of the base, of both modules, and one that exists nowhere. */
const PROGRAM = `
  #define KERNEL __attribute__((preserve_access_index))
  struct list { struct list *next; } KERNEL;
  struct tree { struct tree *right; struct list list; } KERNEL;
  struct leaf { unsigned int weight : 3; struct tree *parent; } KERNEL;
  struct ping { int count; int gone; } KERNEL;
  struct nowhere { int a; } KERNEL;
  __attribute__((section("raw_tp"))) int program(void **context) {
    struct tree *tree = context[0];
    struct leaf *leaf = context[1];
    struct ping *ping = context[2];
    int exists = __builtin_preserve_type_info(*(struct leaf *)0, 0) +
      __builtin_preserve_type_info(*(struct nowhere *)0, 0) +
      __builtin_preserve_field_info(ping->gone, 2) + __builtin_preserve_type_info(*(struct ping *)0, 1);
    return exists + (tree->right != 0) + (tree->list.next != 0) + (leaf->parent != 0) + ping->count +
      __builtin_btf_type_id(*leaf, 1) + __builtin_preserve_field_info(leaf->weight, 5);
  }
  char LICENSE[] __attribute__((section("license"))) = "GPL";
`

t.test('CO-RE objects relocate against merged BTF as against base and module', async (t) => {
  const folder = t.testdir()
  const kernels = littleKernels()
  const over = kernels.get('x86_64')!
  const kernel = parseBtf(readFileSync(over))
  const modules = Object.entries(MODULES).map(([name, source]) =>
    parseBtf(readFileSync(splitOf(compileModule(folder, name, source), over)), { base: kernel }),
  )
  const program = join(folder, 'program.o')
  execFileSync(
    'clang-19',
    ['--target=bpfel', '-g', '-O2', '-mcpu=v3', '-x', 'c', '-c', '-', '-o', program],
    {
      input: PROGRAM,
    },
  )
  const harness = await buildRelocate(folder)
  for (const module of modules) {
    const { btf, path } = merged(folder, [module], kernel)
    for (const object of [program, ...coreObjects('el').values()]) {
      const opened = openObject(readFileSync(object))
      const ours = relocate(opened, btf)
      t.same(ours.relocations, relocate(opened, module).relocations, object)
      t.same(
        differences(await relocateWithLibbpf([harness], object, path), ours),
        [],
        'and libbpf agrees',
      )
    }
  }
  const { btf } = merged(folder, modules, kernel)
  const { relocations } = relocate(openObject(readFileSync(program)), btf)
  const answers = relocations.map(({ relocation, outcome }) => `${relocation.kind} ${outcome.is}`)
  t.same(answers, [
    ...['byte_off ok', 'byte_off ok', 'byte_off ok', 'type_exists ok', 'type_exists absent'],
    ...['field_exists absent', 'type_size ok', 'byte_off ok', 'target_type_id ok', 'rshift_u64 ok'],
  ])
})

/** Types without ids. They get consecutive ids from 2, over a base with one int. */
type Draft = (id: number) => BtfType
const pointer =
  (type: number): Draft =>
  (id) => ({ kind: 'PTR', id, name: '', type, flag: false })
const forward =
  (name: string, of: 'struct' | 'union' = 'struct'): Draft =>
  (id) => ({ kind: 'FWD', id, name, of })
const struct =
  (name: string, ...types: number[]): Draft =>
  (id) => ({
    kind: 'STRUCT',
    id,
    name,
    size: 8 * types.length,
    flag: false,
    members: types.map((type, i) => ({ name: '', type, bitOffset: 64 * i, bitfieldSize: 0 })),
  })
const enumeration =
  (name: string, ...values: string[]): Draft =>
  (id) => {
    const numbered = values.map((value, i) => ({ name: value, value: i }))
    return { kind: 'ENUM', id, name, size: 4, signed: false, values: numbered }
  }
const variable: Draft = (id) => ({ kind: 'VAR', id, name: 'v', type: 1, linkage: 'static' })

const INT: BtfType = {
  ...{ kind: 'INT', id: 1, name: 'int', size: 4 },
  ...{ signed: true, char: false, bool: false, bits: 32, bitOffset: 0 },
}

/** Merges modules over a base of an int and `more`. Returns the added types: id, kind, name, references. */
function mergeDrafts(
  modules: readonly (readonly Draft[])[],
  more: readonly Draft[] = [],
): string[] {
  const over = parseBtf(encodeBtf([INT, ...more.map((draft, i) => draft(2 + i))]))
  const split = modules.map((drafts) =>
    parseBtf(
      encodeBtf(
        drafts.map((draft, i) => draft(over.endId + i)),
        { base: over },
      ),
      { base: over },
    ),
  )
  const btf = parseBtf(mergeBtf(over, split))
  return [...btf.types()].slice(over.typeCount).map((type) => {
    const ids = 'members' in type ? type.members.map((member) => member.type) : []
    return `${type.id} ${type.kind} ${type.name} ${'type' in type ? type.type : ids}`.trim()
  })
}

t.test('cyclic types are merged if no path tells them apart', (t) => {
  const once = [struct('node', 3), pointer(2)]
  const twice = [struct('node', 3), pointer(4), struct('node', 5), pointer(2)]
  t.same(mergeDrafts([once, once]), ['2 STRUCT node 3', '3 PTR  2'])
  t.same(
    mergeDrafts([twice]),
    ['2 STRUCT node 3', '3 PTR  2'],
    'the number of copies in the cycle does not matter',
  )
  t.same(
    mergeDrafts([[struct('node', 5), pointer(4)]], once),
    [],
    'a cycle of the base is not repeated',
  )
  const other = [struct('node', 3), pointer(4), struct('node', 1)]
  t.equal(
    mergeDrafts([once, other]).length,
    5,
    'a difference further on makes all before it differ',
  )
  t.same(mergeDrafts([[pointer(2)], [pointer(2)]]), ['2 PTR  2'], 'a cycle without a struct')
  t.same(mergeDrafts([[pointer(3), pointer(2)], [pointer(2)]]), ['2 PTR  2'])
  t.end()
})

t.test('variables and sections are never merged', (t) => {
  t.equal(mergeDrafts([[variable], [variable]], [variable]).length, 2)
  t.end()
})

t.test(
  'a declaration is replaced by the only struct of its name, and stays if there are several',
  (t) => {
    const declares = [forward('s'), pointer(2)]
    t.same(mergeDrafts([declares, [struct('s', 1)]]), ['2 PTR  3', '3 STRUCT s 1'])
    t.same(
      mergeDrafts([[forward('s'), pointer(3)]], [struct('s', 1)]),
      ['3 PTR  2'],
      'the struct is in the base',
    )
    t.same(mergeDrafts([declares, declares]), ['2 FWD s', '3 PTR  2'])
    t.equal(
      mergeDrafts([declares, [struct('s', 1)], [struct('s')]]).length,
      4,
      'there are two structs of different size',
    )
    t.equal(
      mergeDrafts([declares, [struct('s', 1)], [struct('s', 3), pointer(1)]]).length,
      5,
      'or two types',
    )
    t.equal(
      mergeDrafts([[forward('s', 'union')], [struct('s', 1)]]).length,
      2,
      'the struct has another kind',
    )
    t.equal(
      mergeDrafts([[forward('')], [struct('', 1)]]).length,
      2,
      'an anonymous declaration stays',
    )
    t.same(
      mergeDrafts([[forward('s'), pointer(3)], [struct('s', 1)]], [forward('s')]),
      ['3 PTR  2', '4 STRUCT s 1'],
      'the base’s own stays',
    )
    const known = [enumeration('s', 'A'), struct('s', 1)]
    t.equal(
      mergeDrafts([[enumeration('s'), pointer(2)], known]).length,
      3,
      'the same holds for enums',
    )
    t.equal(mergeDrafts([[enumeration('s')], known, [enumeration('s', 'A', 'B')]]).length, 4)
    t.equal(mergeDrafts([[enumeration('s')], [struct('s', 1)]]).length, 2)
    const x = [struct('x', 3), pointer(4), forward('y')]
    const y = [struct('y', 3), pointer(4), forward('x')]
    const both = [struct('x', 3), pointer(4), struct('y', 5), pointer(2)]
    t.equal(
      mergeDrafts([x, y, both]).length,
      4,
      'two that declare each other, and are defined together',
    )
    t.end()
  },
)

t.test('a chain of declarations that become ambiguous one after the other stays', (t) => {
  // s0 is two structs; the two s1 are equal only if `struct s0` is unambiguous, and so on
  const length = 20_000
  const known: Draft[] = [struct('s0', 1), pointer(2)]
  const declared: Draft[] = [struct('s0', 3), pointer(1), forward('s0'), pointer(4)]
  for (let i = 1; i < length; i++) {
    known.push(struct(`s${i}`, 2 * i + 1), pointer(2 * i + 2))
    declared.push(
      struct(`s${i}`, declared.length + 1),
      forward(`s${i}`),
      pointer(declared.length + 3),
    )
  }
  const merged = mergeDrafts([known, declared])
  t.equal(merged.filter((line) => line.includes('FWD')).length, length)
  t.equal(merged.filter((line) => line.includes('STRUCT')).length, 2 * length)
  t.end()
})

/** The equal types of a list, by comparing all pairs until nothing changes: slow, but simple. */
function equalPairs(types: readonly BtfType[]): boolean[][] {
  const said = types.map((type) => {
    const ids: number[] = []
    const text = JSON.stringify(renumbered(type, (id) => Math.min(1, ids.push(id))))
    return { text, ids: ids.slice(1) } // a type is equal to itself
  })
  const equal = said.map((a) => said.map((b) => a.text === b.text))
  for (let changed = true; changed; ) {
    changed = false
    said.forEach((a, i) => {
      said.forEach((b, j) => {
        if (!equal[i]![j] || a.ids.every((id, n) => equal[id - 1]![b.ids[n]! - 1])) return
        equal[i]![j] = false
        changed = true
      })
    })
  }
  return equal
}

t.test('random graphs merge without loss and without duplicates', (t) => {
  let state = 1
  const below = (limit: number) => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0
    return (state >>> 16) % limit
  }
  let dropped = 0
  for (let round = 0; round < 300; round++) {
    const drafts = (first: number, length: number): Draft[] =>
      Array.from({ length }, () => {
        const to = () => below(first + length - 1) + 1
        return below(3) === 0 ? struct('ab'[below(2)]!, to(), to()) : pointer(to())
      })
    const over = parseBtf(encodeBtf([INT, ...drafts(2, 3).map((draft, i) => draft(2 + i))]))
    const modules = [6, 5, 4].map((length) => {
      const types = drafts(over.endId, length).map((draft, i) => draft(over.endId + i))
      return parseBtf(encodeBtf(types, { base: over }), { base: over })
    })
    const merged = parseBtf(mergeBtf(over, modules))
    // all types in one list: the merged BTF with the base, then each module
    const types = [...merged.types()]
    for (const module of modules) {
      const shift = types.length + 1 - module.startId
      types.push(
        ...[...module.types()].map((type) =>
          renumbered(type, (id) => (id < over.endId ? id : id + shift)),
        ),
      )
    }
    const equal = equalPairs(types)
    const kept = types.map((_, i) => equal[i]!.findIndex((same) => same))
    const lost = kept.slice(merged.typeCount).filter((first) => first >= merged.typeCount)
    const twice = kept
      .slice(over.typeCount, merged.typeCount)
      .filter((first, i) => first !== over.typeCount + i)
    const added = new Set(kept.slice(merged.typeCount).filter((first) => first >= over.typeCount))
      .size
    if (lost.length || twice.length || added !== merged.typeCount - over.typeCount)
      t.same({ round, kept }, {})
    dropped += types.length - 2 * merged.typeCount + over.typeCount
  }
  t.ok(dropped > 300, `${dropped} types were equal to another`)
  t.end()
})
